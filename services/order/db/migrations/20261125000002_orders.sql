-- migrate:up
CREATE TYPE order_status AS ENUM (
    'pending_payment', 'paid', 'shipped', 'delivered', 'cancelled', 'expired', 'refunded'
);
CREATE TYPE payment_status AS ENUM ('processing', 'approved', 'declined', 'failed');

CREATE TABLE orders (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    status order_status NOT NULL,
    currency text NOT NULL,
    total_minor bigint NOT NULL CHECK (total_minor >= 0),
    version bigint NOT NULL,
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

-- Newest first: an id is time-ordered (UUIDv7).
CREATE INDEX orders_user_id_id_idx ON orders (user_id, id DESC);
CREATE INDEX orders_pending_expires_at_idx ON orders (expires_at) WHERE status = 'pending_payment';

CREATE TABLE order_items (
    order_id uuid NOT NULL REFERENCES orders (id),
    line_no integer NOT NULL,
    product_id uuid NOT NULL REFERENCES products (id),
    name text NOT NULL,
    unit_price_minor bigint NOT NULL,
    quantity integer NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (order_id, line_no)
);

CREATE TABLE order_transitions (
    order_id uuid NOT NULL REFERENCES orders (id),
    version bigint NOT NULL,
    from_status order_status,
    to_status order_status NOT NULL,
    -- Null: the system itself.
    actor_id uuid,
    reason text NOT NULL,
    occurred_at timestamptz NOT NULL,
    PRIMARY KEY (order_id, version)
);

-- One attempt to pay one order. At most one is processing; its outcome is found with the provider by its id.
CREATE TABLE payments (
    id uuid PRIMARY KEY,
    order_id uuid NOT NULL REFERENCES orders (id),
    user_id uuid NOT NULL,
    idempotency_key text NOT NULL,
    payment_token text NOT NULL,
    status payment_status NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

CREATE UNIQUE INDEX payments_one_processing_idx ON payments (order_id) WHERE status = 'processing';
CREATE INDEX payments_processing_created_at_idx ON payments (created_at) WHERE status = 'processing';

-- The durable truth of idempotency: written in the transaction of what it guards.
CREATE TABLE idempotency_keys (
    user_id uuid NOT NULL,
    key text NOT NULL,
    request_hash bytea NOT NULL,
    -- Empty while the operation is not finished.
    response bytea NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, key)
);

CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at);

-- migrate:down
-- Forward only: a rollback is another migration (expand and contract).
