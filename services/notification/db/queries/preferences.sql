-- name: GetPreferences :one
SELECT * FROM preferences WHERE user_id = $1;

-- name: LockPreferences :one
-- The row, made when there is none, so that two changes are made one after the other.
INSERT INTO preferences (user_id, switched_off, version, updated_at) VALUES ($1, '{}', 1, $2)
ON CONFLICT (user_id) DO UPDATE SET user_id = EXCLUDED.user_id
RETURNING *;

-- name: UpdatePreferences :exec
UPDATE preferences SET switched_off = $2, version = $3, updated_at = $4 WHERE user_id = $1;
