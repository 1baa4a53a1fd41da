-- name: InsertPayment :exec
INSERT INTO payments (id, order_id, user_id, idempotency_key, payment_token, status, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, 'processing', sqlc.arg(now), sqlc.arg(now));

-- name: GetProcessingPayment :one
SELECT * FROM payments WHERE order_id = $1 AND status = 'processing';

-- name: CountPayments :one
SELECT count(*) AS begun, count(*) FILTER (WHERE status = 'declined') AS declined FROM payments WHERE order_id = $1;

-- name: LockPayment :one
SELECT * FROM payments WHERE id = $1 FOR UPDATE;

-- name: GetApprovedPayment :one
SELECT * FROM payments WHERE order_id = $1 AND status = 'approved';

-- name: FinishPayment :exec
UPDATE payments SET status = $2, updated_at = $3 WHERE id = $1;

-- name: ClaimStuckPayments :many
-- Attempts whose process died, or whose provider never answered, before an outcome was recorded. Put off before the
-- provider is asked: one that cannot be settled holds up no other. One from a time yet to come was begun by a clock that
-- was ahead, and is not waited for.
UPDATE payments
SET checks = checks + 1,
    next_check_at = sqlc.arg(now)::timestamptz + least(interval '15 seconds' * 2 ^ least(checks, 12), interval '1 hour')
WHERE id IN (
    SELECT stuck.id FROM payments AS stuck
    WHERE stuck.status = 'processing'
      AND (stuck.created_at <= sqlc.arg(created_before) OR stuck.created_at > sqlc.arg(created_after))
      AND (stuck.next_check_at IS NULL OR stuck.next_check_at <= sqlc.arg(now)::timestamptz)
    ORDER BY coalesce(stuck.next_check_at, stuck.created_at)
    LIMIT sqlc.arg(row_limit)
    FOR UPDATE SKIP LOCKED
)
RETURNING *;

-- name: ClaimKey :one
-- Lock and look in one round trip. The lock is held until the transaction ends; not locked: another transaction runs
-- under the same key right now. A row that commits between this statement's snapshot and its lock is not seen here;
-- inserting the key then finds it.
SELECT pg_try_advisory_xact_lock(sqlc.arg(lock_id)::bigint) AS locked, k.request_hash, k.response
FROM (SELECT 1) AS always
LEFT JOIN idempotency_keys AS k ON k.user_id = sqlc.arg(user_id) AND k.key = sqlc.arg(key);

-- name: ClaimKeyInTurn :one
-- The same, and what one user orders is placed one after the other: each sees what the ones before it reserved. Keys
-- are never waited for, so nobody waits in a circle.
SELECT CASE WHEN pg_try_advisory_xact_lock(sqlc.arg(lock_id)::bigint)
            THEN pg_advisory_xact_lock(sqlc.arg(user_lock_id)::bigint) IS NOT NULL ELSE false END::boolean AS locked,
       k.request_hash, k.response
FROM (SELECT 1) AS always
LEFT JOIN idempotency_keys AS k ON k.user_id = sqlc.arg(user_id) AND k.key = sqlc.arg(key);

-- name: InsertIdempotencyKey :execrows
INSERT INTO idempotency_keys (user_id, key, request_hash, response, created_at)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (user_id, key) DO NOTHING;

-- name: GetIdempotentResponse :one
SELECT response FROM idempotency_keys WHERE user_id = $1 AND key = $2;

-- name: SetIdempotentResponse :exec
UPDATE idempotency_keys SET response = $3 WHERE user_id = $1 AND key = $2;

-- name: DeleteOldIdempotencyKeys :execrows
-- Not the keys of what is still under way: a retry finds it by them, however long it takes.
DELETE FROM idempotency_keys WHERE (user_id, key) IN (
    SELECT old.user_id, old.key FROM idempotency_keys AS old
    WHERE old.created_at < sqlc.arg(created_before)
      AND NOT EXISTS (SELECT FROM payments AS p
                      WHERE p.status = 'processing' AND p.user_id = old.user_id AND p.idempotency_key = old.key)
      AND NOT EXISTS (SELECT FROM refunds AS r
                      WHERE r.status <> 'succeeded' AND r.actor_id = old.user_id AND r.idempotency_key = old.key)
    ORDER BY old.created_at
    LIMIT sqlc.arg(row_limit)
    FOR UPDATE SKIP LOCKED
);

-- name: InsertSandboxCharge :one
INSERT INTO payment_sandbox_charges (reference, amount_minor, currency, approved, payment_token)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (reference) DO UPDATE SET reference = EXCLUDED.reference
RETURNING *;

-- name: GetSandboxCharge :one
SELECT * FROM payment_sandbox_charges WHERE reference = $1;

-- name: TrySandboxRefund :one
-- One more call to refund a charge; null when there is none to refund.
UPDATE payment_sandbox_charges SET refund_tries = refund_tries + 1 WHERE reference = $1 AND approved RETURNING *;

-- name: RefundSandboxCharge :exec
UPDATE payment_sandbox_charges SET refunded = true WHERE reference = $1 AND approved;
