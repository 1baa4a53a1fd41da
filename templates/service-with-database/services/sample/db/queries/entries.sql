-- name: InsertEntry :one
INSERT INTO entries (id, user_id, text, created_at) VALUES ($1, $2, $3, $4) RETURNING *;

-- name: GetEntry :one
SELECT * FROM entries WHERE id = $1;

-- name: ListEntries :many
-- A user's, newest first, after the keyset (created_at, id).
SELECT * FROM entries
WHERE user_id = $1
  AND (sqlc.narg(after_created_at)::timestamptz IS NULL
       OR (created_at, id) < (sqlc.narg(after_created_at)::timestamptz, sqlc.narg(after_id)::uuid))
ORDER BY created_at DESC, id DESC
LIMIT sqlc.arg(row_limit);
