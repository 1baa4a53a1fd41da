-- migrate:up
CREATE TABLE products (
    id uuid PRIMARY KEY,
    sku text NOT NULL CONSTRAINT products_sku_key UNIQUE,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    price_minor bigint NOT NULL CHECK (price_minor >= 0),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    available bigint NOT NULL CONSTRAINT products_available_check CHECK (available >= 0),
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

CREATE INDEX products_name_id_idx ON products (name, id);

-- Every change of stock by hand, with who and why; what orders take and give back is in the orders themselves.
CREATE TABLE stock_changes (
    id uuid PRIMARY KEY,
    product_id uuid NOT NULL REFERENCES products (id),
    delta bigint NOT NULL,
    reason text NOT NULL,
    actor_id uuid NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE INDEX stock_changes_product_id_idx ON stock_changes (product_id);

-- migrate:down
-- Forward only: a rollback is another migration (expand and contract).
