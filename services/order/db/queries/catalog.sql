-- name: InsertProduct :one
INSERT INTO products (id, sku, name, price_minor, currency, available, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, sqlc.arg(now), sqlc.arg(now))
ON CONFLICT (sku) DO NOTHING
RETURNING *;

-- name: GetProduct :one
SELECT * FROM products WHERE id = $1;

-- name: LockProduct :one
SELECT * FROM products WHERE id = $1 FOR UPDATE;

-- name: LockProducts :many
-- In the order of their ids: two orders over the same products never wait for each other in a circle.
SELECT * FROM products WHERE id = ANY(sqlc.arg(ids)::uuid[]) ORDER BY id FOR UPDATE;

-- name: UpdateProduct :one
UPDATE products
SET name = $2, price_minor = $3, currency = $4, version = version + 1, updated_at = $5
WHERE id = $1
RETURNING *;

-- name: ChangeStock :many
UPDATE products AS p
SET available = p.available + change.delta, version = p.version + 1, updated_at = sqlc.arg(now)
FROM (
    SELECT unnest(sqlc.arg(ids)::uuid[]) AS id, unnest(sqlc.arg(deltas)::bigint[]) AS delta
) AS change
WHERE p.id = change.id
RETURNING p.*;

-- name: InsertStockChange :exec
INSERT INTO stock_changes (id, product_id, delta, reason, actor_id, created_at)
VALUES ($1, $2, $3, $4, $5, $6);

-- name: ListProducts :many
-- By name, after the keyset (name, id); the search is part of a name, in any case.
SELECT * FROM products
WHERE (sqlc.narg(after_name)::text IS NULL
       OR (name, id) > (sqlc.narg(after_name)::text, sqlc.narg(after_id)::uuid))
  AND (sqlc.narg(pattern)::text IS NULL OR lower(name) LIKE sqlc.narg(pattern))
ORDER BY name, id
LIMIT sqlc.arg(row_limit);
