-- migrate:up
CREATE TABLE entries (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    text text NOT NULL CHECK (length(text) BETWEEN 1 AND 1000),
    created_at timestamptz NOT NULL
);

-- A user's entries, newest first.
CREATE INDEX entries_user_id_created_at_id ON entries (user_id, created_at DESC, id DESC);

-- migrate:down
-- Forward only: a rollback is another migration (expand and contract).
