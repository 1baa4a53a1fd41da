-- name: InsertRefund :exec
INSERT INTO refunds (
    order_id, payment_id, restock, reason, actor_id, idempotency_key, status, attempts, last_error, next_attempt_at,
    requested_at, updated_at
)
VALUES ($1, $2, $3, $4, $5, $6, 'pending', 1, '', sqlc.arg(next_attempt_at), sqlc.arg(now), sqlc.arg(now));

-- name: GetRefund :one
SELECT * FROM refunds WHERE order_id = $1;

-- name: TryRefundAgain :one
-- Counted like every other attempt, and left to who makes it: the sweep asks later.
UPDATE refunds
SET attempts = attempts + 1, updated_at = sqlc.arg(now),
    next_attempt_at = greatest(next_attempt_at, sqlc.arg(not_before)::timestamptz)
WHERE order_id = $1
RETURNING *;

-- name: ClaimDueRefunds :many
-- Counted and put off before they are tried: one that fails, or kills its process, holds up no other.
UPDATE refunds
SET attempts = attempts + 1, updated_at = sqlc.arg(now),
    next_attempt_at = sqlc.arg(now)::timestamptz + least(interval '30 seconds' * 2 ^ least(attempts, 12), interval '1 hour')
WHERE order_id IN (
    SELECT due.order_id FROM refunds AS due
    WHERE due.status <> 'succeeded' AND due.next_attempt_at <= sqlc.arg(now)::timestamptz
    ORDER BY due.next_attempt_at
    LIMIT sqlc.arg(row_limit)
    FOR UPDATE SKIP LOCKED
)
RETURNING *;

-- name: SetRefundStatus :exec
-- What succeeded stays so.
UPDATE refunds SET status = $2, last_error = $3, updated_at = $4 WHERE order_id = $1 AND status <> 'succeeded';
