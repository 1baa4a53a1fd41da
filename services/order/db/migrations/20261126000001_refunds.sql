-- migrate:up
-- The intent to refund is recorded before the provider is asked, and excludes every other transition.
ALTER TYPE order_status ADD VALUE 'refunding' BEFORE 'refunded';
CREATE TYPE refund_status AS ENUM ('pending', 'refused', 'succeeded');

-- At most one an order: a refund that fails or is refused is tried again, never dropped.
CREATE TABLE refunds (
    order_id uuid PRIMARY KEY REFERENCES orders (id),
    -- What the provider knows the money by; null when none was taken.
    payment_id uuid REFERENCES payments (id),
    restock boolean NOT NULL,
    reason text NOT NULL,
    actor_id uuid NOT NULL,
    idempotency_key text NOT NULL,
    status refund_status NOT NULL,
    attempts integer NOT NULL,
    -- Why the last attempt did not give the money back; empty when it did, or has not ended.
    last_error text NOT NULL,
    next_attempt_at timestamptz NOT NULL,
    requested_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

CREATE INDEX refunds_due_idx ON refunds (next_attempt_at) WHERE status <> 'succeeded';

-- When the sweep asks the provider next; null: as soon as the attempt is old enough.
ALTER TABLE payments ADD COLUMN checks integer NOT NULL DEFAULT 0;
ALTER TABLE payments ADD COLUMN next_check_at timestamptz;

-- By which the sandbox decides how a refund of the charge goes.
ALTER TABLE payment_sandbox_charges ADD COLUMN payment_token text NOT NULL DEFAULT '';
ALTER TABLE payment_sandbox_charges ADD COLUMN refund_tries integer NOT NULL DEFAULT 0;

-- migrate:down
-- Forward only: a rollback is another migration (expand and contract).
