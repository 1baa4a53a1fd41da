-- migrate:up
CREATE TYPE user_status AS ENUM ('active', 'disabled');

CREATE TABLE users (
    id uuid PRIMARY KEY,
    email text NOT NULL CHECK (length(email) <= 254),
    display_name text NOT NULL CHECK (length(display_name) BETWEEN 1 AND 100),
    password_hash text NOT NULL,
    status user_status NOT NULL DEFAULT 'active',
    roles text[] NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

-- Unique regardless of case; the stored address keeps the case its owner typed.
CREATE UNIQUE INDEX users_email_key ON users (lower(email));

-- migrate:down
-- Forward only: a rollback is another migration (expand and contract).
