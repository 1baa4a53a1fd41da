-- name: InsertUser :one
INSERT INTO users
    (id, email, display_name, password_hash, roles, credential_version, email_key, search_text, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, sqlc.arg(now), sqlc.arg(now))
ON CONFLICT DO NOTHING
RETURNING *;

-- name: GetUser :one
SELECT * FROM users WHERE id = $1;

-- name: GetUserByEmail :one
SELECT * FROM users WHERE email_key = $1;

-- name: LockUser :one
SELECT * FROM users WHERE id = $1 FOR UPDATE;

-- name: UpdateUser :one
UPDATE users
SET display_name = $2, password_hash = $3, status = $4, roles = $5, version = $6, updated_at = $7,
    credential_version = $8, search_text = $9
WHERE id = $1
RETURNING *;

-- name: RehashPassword :exec
-- The same password under new parameters, unless it was changed meanwhile. No new version: nobody sees a difference.
UPDATE users SET password_hash = sqlc.arg(new_hash) WHERE id = $1 AND password_hash = sqlc.arg(old_hash);

-- name: SerializeAdministrators :exec
-- Changes that may leave nobody who administers users are made one after the other (until the transaction ends).
SELECT pg_advisory_xact_lock(8318443);

-- name: OtherAdministratorExists :one
SELECT EXISTS (SELECT 1 FROM users WHERE id <> $1 AND status = 'active' AND 'admin' = ANY(roles));

-- name: ListUsers :many
-- Newest first, after the keyset; the pattern is looked for in what was stored by the same rule.
SELECT * FROM users
WHERE (sqlc.narg(before_id)::uuid IS NULL OR id < sqlc.narg(before_id))
  AND (sqlc.narg(pattern)::text IS NULL OR search_text LIKE sqlc.narg(pattern))
ORDER BY id DESC
LIMIT sqlc.arg(row_limit);

-- name: UsersWithoutForms :many
-- Rows of before there were canonical forms, after the keyset.
SELECT * FROM users
WHERE (email_key IS NULL OR search_text IS NULL) AND (sqlc.narg(after_id)::uuid IS NULL OR id > sqlc.narg(after_id))
ORDER BY id
LIMIT sqlc.arg(row_limit);

-- name: SetSearchText :exec
UPDATE users SET search_text = $2 WHERE id = $1 AND search_text IS NULL;

-- name: SetEmailKey :one
-- Nothing when another user has this address: the elder keeps it.
UPDATE users AS filled SET email_key = sqlc.arg(email_key)
WHERE filled.id = sqlc.arg(id)
  AND NOT EXISTS (SELECT 1 FROM users AS other WHERE other.email_key = sqlc.arg(email_key) AND other.id <> sqlc.arg(id))
RETURNING filled.id;
