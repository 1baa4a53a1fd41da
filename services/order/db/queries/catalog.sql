-- name: InsertProduct :one
INSERT INTO products (id, sku, name, price_minor, currency, available, search_key, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, sqlc.arg(search_key)::text, sqlc.arg(now), sqlc.arg(now))
ON CONFLICT (sku) DO NOTHING
RETURNING *;

-- name: GetProduct :one
SELECT * FROM products WHERE id = $1;

-- name: LockProduct :one
SELECT * FROM products WHERE id = $1 FOR UPDATE;

-- name: LockProducts :many
-- In the order of their ids: two orders over the same products never wait for each other in a circle.
SELECT * FROM products WHERE id = ANY(sqlc.arg(ids)::uuid[]) ORDER BY id FOR UPDATE;

-- name: LockProductsToOrder :many
-- The same, and what a user has lately reserved without paying, so that both cost one round trip: the number of such
-- orders, and the pieces of each product in them.
WITH unpaid AS (
    SELECT placed.id FROM orders AS placed
    WHERE placed.user_id = sqlc.arg(user_id) AND placed.created_at >= sqlc.arg(placed_since)
      AND placed.status IN ('pending_payment', 'cancelled', 'expired')
    ORDER BY placed.created_at DESC, placed.id DESC
    LIMIT sqlc.arg(most_orders)
), pieces AS (
    SELECT item.product_id, sum(item.quantity) AS quantity
    FROM order_items AS item JOIN unpaid ON unpaid.id = item.order_id
    GROUP BY item.product_id
)
SELECT sqlc.embed(products), (SELECT count(*) FROM unpaid)::bigint AS unpaid_orders,
       coalesce(pieces.quantity, 0)::bigint AS unpaid_pieces
FROM products LEFT JOIN pieces ON pieces.product_id = products.id
WHERE products.id = ANY(sqlc.arg(ids)::uuid[])
ORDER BY products.id
FOR UPDATE OF products;

-- name: UpdateProduct :one
UPDATE products
SET name = $2, price_minor = $3, currency = $4, search_key = sqlc.arg(search_key)::text, version = version + 1,
    updated_at = $5
WHERE id = $1
RETURNING *;

-- name: ChangeStock :many
UPDATE products AS p
SET available = p.available + change.delta, stock_version = p.stock_version + 1, updated_at = sqlc.arg(now)
FROM (
    SELECT unnest(sqlc.arg(ids)::uuid[]) AS id, unnest(sqlc.arg(deltas)::bigint[]) AS delta
) AS change
WHERE p.id = change.id
RETURNING p.*;

-- name: InsertStockChange :exec
INSERT INTO stock_changes (id, product_id, delta, reason, actor_id, created_at)
VALUES ($1, $2, $3, $4, $5, $6);

-- name: ListProducts :many
-- By name, after the keyset (name, id); the pattern is of what search_key makes of a name.
SELECT * FROM products
WHERE (sqlc.narg(after_name)::text IS NULL
       OR (name, id) > (sqlc.narg(after_name)::text, sqlc.narg(after_id)::uuid))
  AND (sqlc.narg(pattern)::text IS NULL OR search_key LIKE sqlc.narg(pattern))
ORDER BY name, id
LIMIT sqlc.arg(row_limit);

-- name: ListProductsWithoutSearchKey :many
SELECT id, name FROM products WHERE search_key IS NULL ORDER BY id LIMIT sqlc.arg(row_limit) FOR UPDATE SKIP LOCKED;

-- name: SetSearchKeys :exec
-- The description is what it was: no version is raised.
UPDATE products SET search_key = made.search_key
FROM (SELECT unnest(sqlc.arg(ids)::uuid[]) AS id, unnest(sqlc.arg(search_keys)::text[]) AS search_key) AS made
WHERE products.id = made.id;
