-- migrate:up
-- The one form of an address (user_service.domain.email_address), and what a search looks into (chassis.text). Both are made
-- by the service, never here: a database's rules for case follow its collation. For ASCII the rules are the same, so these
-- rows are filled at once; the service fills the others when it starts. NULL: not filled yet, or no address by today's rules.
ALTER TABLE users ADD COLUMN email_key text;
ALTER TABLE users ADD COLUMN search_text text;

UPDATE users SET email_key = lower(email) WHERE email ~ '^[\x01-\x7f]+$';
UPDATE users SET search_text = lower(email) || E'\n' || lower(display_name)
WHERE email ~ '^[\x01-\x7f]+$' AND display_name ~ '^[\x01-\x7f]+$';

-- users_email_key stays for one more release: what an older service inserts is unique by it.
CREATE UNIQUE INDEX users_email_key_key ON users (email_key);

-- migrate:down
-- Forward only: a rollback is another migration (expand and contract).
