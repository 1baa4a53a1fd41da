-- migrate:up
-- What ends all sessions of a user replaces this value; a session carries the one under which it was granted.
ALTER TABLE users ADD COLUMN credential_version bigint NOT NULL DEFAULT 1;

-- migrate:down
-- Forward only: a rollback is another migration (expand and contract).
