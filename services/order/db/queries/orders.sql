-- name: InsertOrder :exec
-- An order with its lines and its first transition, in one round trip.
WITH new_order AS (
    INSERT INTO orders (id, user_id, status, currency, total_minor, version, expires_at, created_at, updated_at)
    VALUES (sqlc.arg(id), sqlc.arg(user_id), 'pending_payment', sqlc.arg(currency), sqlc.arg(total_minor), 1,
            sqlc.arg(expires_at), sqlc.arg(now), sqlc.arg(now))
), new_items AS (
    INSERT INTO order_items (order_id, line_no, product_id, name, unit_price_minor, quantity)
    SELECT sqlc.arg(id)::uuid, generate_subscripts(sqlc.arg(product_ids)::uuid[], 1),
           unnest(sqlc.arg(product_ids)::uuid[]), unnest(sqlc.arg(names)::text[]),
           unnest(sqlc.arg(unit_prices_minor)::bigint[]), unnest(sqlc.arg(quantities)::integer[])
)
INSERT INTO order_transitions (order_id, version, from_status, to_status, actor_id, reason, occurred_at)
VALUES (sqlc.arg(id), 1, NULL, 'pending_payment', sqlc.arg(user_id), 'placed', sqlc.arg(now));

-- name: InsertTransition :exec
INSERT INTO order_transitions
    (order_id, version, from_status, to_status, actor_id, reason, occurred_at, carrier, tracking_number)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: GetOrder :many
-- One row for each line of the order.
SELECT sqlc.embed(orders), sqlc.embed(order_items)
FROM orders JOIN order_items ON order_items.order_id = orders.id
WHERE orders.id = $1
ORDER BY order_items.line_no;

-- name: GetOrderVersion :many
-- An order as a version left it, one row for each line: only status, version and time of change ever change, and the
-- history has them all.
SELECT sqlc.embed(orders), sqlc.embed(order_items), order_transitions.to_status, order_transitions.occurred_at
FROM orders
JOIN order_items ON order_items.order_id = orders.id
JOIN order_transitions ON order_transitions.order_id = orders.id AND order_transitions.version = sqlc.arg(version)
WHERE orders.id = sqlc.arg(id)
ORDER BY order_items.line_no;

-- name: LockOrder :one
SELECT * FROM orders WHERE id = $1 FOR UPDATE;

-- name: LockOrderIfFree :one
-- Null as well when somebody else has locked it: what is in somebody's hands need not be waited for.
SELECT * FROM orders WHERE id = $1 FOR UPDATE SKIP LOCKED;

-- name: UpdateOrderStatus :exec
UPDATE orders SET status = $2, version = $3, updated_at = $4 WHERE id = $1;

-- name: ListOrders :many
-- Newest first, after the keyset; null filters do not filter.
SELECT * FROM orders
WHERE (sqlc.narg(user_id)::uuid IS NULL OR user_id = sqlc.narg(user_id))
  AND (sqlc.narg(before_created_at)::timestamptz IS NULL
       OR (created_at, id) < (sqlc.narg(before_created_at)::timestamptz, sqlc.narg(before_id)::uuid))
  AND (sqlc.narg(status)::order_status IS NULL OR status = sqlc.narg(status))
  AND (sqlc.narg(created_from)::timestamptz IS NULL OR created_at >= sqlc.narg(created_from))
  AND (sqlc.narg(created_before)::timestamptz IS NULL OR created_at < sqlc.narg(created_before))
ORDER BY created_at DESC, id DESC
LIMIT sqlc.arg(row_limit);

-- name: ListItemsOfOrders :many
SELECT * FROM order_items WHERE order_id = ANY(sqlc.arg(order_ids)::uuid[]) ORDER BY order_id, line_no;

-- name: ListItemsOfPage :many
-- In the page's own order, newest first.
SELECT order_items.* FROM order_items JOIN orders ON orders.id = order_items.order_id
WHERE order_items.order_id = ANY(sqlc.arg(order_ids)::uuid[])
ORDER BY orders.created_at DESC, orders.id DESC, order_items.line_no
LIMIT sqlc.arg(row_limit);

-- name: SumSpending :many
SELECT currency, sum(total_minor)::numeric AS total_minor FROM orders
WHERE user_id = $1 AND status IN ('paid', 'shipped', 'delivered', 'refunding')
GROUP BY currency ORDER BY currency;

-- name: ListTransitions :many
SELECT * FROM order_transitions WHERE order_id = $1 ORDER BY version;

-- name: ListExpiredOrders :many
-- Unpaid orders whose time is up, after the keyset (expires_at, id); not those being paid right now.
SELECT id, expires_at FROM orders
WHERE status = 'pending_payment' AND expires_at <= sqlc.arg(now)
  AND (sqlc.narg(after_expires_at)::timestamptz IS NULL
       OR (expires_at, id) > (sqlc.narg(after_expires_at)::timestamptz, sqlc.narg(after_id)::uuid))
  AND NOT EXISTS (SELECT FROM payments WHERE payments.order_id = orders.id AND payments.status = 'processing')
ORDER BY expires_at, id
LIMIT sqlc.arg(row_limit);
