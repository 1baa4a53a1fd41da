-- name: InsertPayment :exec
INSERT INTO payments (id, order_id, user_id, idempotency_key, payment_token, status, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, 'processing', sqlc.arg(now), sqlc.arg(now));

-- name: GetProcessingPayment :one
SELECT * FROM payments WHERE order_id = $1 AND status = 'processing';

-- name: LockPayment :one
SELECT * FROM payments WHERE id = $1 FOR UPDATE;

-- name: GetApprovedPayment :one
SELECT * FROM payments WHERE order_id = $1 AND status = 'approved';

-- name: FinishPayment :exec
UPDATE payments SET status = $2, updated_at = $3 WHERE id = $1;

-- name: ListStuckPayments :many
-- Attempts whose process died, or whose provider never answered, before an outcome was recorded.
SELECT * FROM payments WHERE status = 'processing' AND created_at <= sqlc.arg(created_before)
ORDER BY created_at LIMIT sqlc.arg(row_limit);

-- name: ClaimKey :one
-- Lock and look in one round trip. The lock is held until the transaction ends; not locked: another transaction runs
-- under the same key right now. A row that commits between this statement's snapshot and its lock is not seen here;
-- inserting the key then finds it.
SELECT pg_try_advisory_xact_lock(sqlc.arg(lock_id)::bigint) AS locked, k.request_hash, k.response
FROM (SELECT 1) AS always
LEFT JOIN idempotency_keys AS k ON k.user_id = sqlc.arg(user_id) AND k.key = sqlc.arg(key);

-- name: InsertIdempotencyKey :execrows
INSERT INTO idempotency_keys (user_id, key, request_hash, response, created_at)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (user_id, key) DO NOTHING;

-- name: SetIdempotentResponse :exec
UPDATE idempotency_keys SET response = $3 WHERE user_id = $1 AND key = $2;

-- name: DeleteOldIdempotencyKeys :execrows
DELETE FROM idempotency_keys WHERE created_at < sqlc.arg(created_before);

-- name: InsertSandboxCharge :one
INSERT INTO payment_sandbox_charges (reference, amount_minor, currency, approved)
VALUES ($1, $2, $3, $4)
ON CONFLICT (reference) DO UPDATE SET reference = EXCLUDED.reference
RETURNING *;

-- name: GetSandboxCharge :one
SELECT * FROM payment_sandbox_charges WHERE reference = $1;

-- name: RefundSandboxCharge :execrows
UPDATE payment_sandbox_charges SET refunded = true WHERE reference = $1 AND approved;

-- name: ListOrdersBeingPaid :many
SELECT order_id FROM payments WHERE order_id = ANY(sqlc.arg(order_ids)::uuid[]) AND status = 'processing';
