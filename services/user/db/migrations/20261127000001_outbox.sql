-- migrate:up
-- What has happened and is to be told: written in the transaction in which it happens, published by the relay
-- (chassis.events.relay), which goes by position. docs/events.md says what is promised.
CREATE TABLE outbox (
    -- Drawn while the transaction has what it changes locked: of one subject they grow in the order of its changes.
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL,
    type text NOT NULL,
    subject text NOT NULL,
    time timestamptz NOT NULL,
    traceparent text NOT NULL,
    data bytea NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    -- Null until the broker has said that it has the event.
    published_at timestamptz
);

CREATE INDEX outbox_unpublished_idx ON outbox (position) WHERE published_at IS NULL;

-- Which of the replicas publishes, and until when nobody else does.
CREATE TABLE outbox_lease (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    holder uuid NOT NULL,
    until timestamptz NOT NULL
);

INSERT INTO outbox_lease (holder, until) VALUES ('00000000-0000-0000-0000-000000000000', '-infinity');

-- What is recorded stays as it is: only that it was published is added, once.
DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN
        SELECT DISTINCT grantee FROM information_schema.role_table_grants
        WHERE table_schema = 'public' AND table_name = 'outbox' AND privilege_type = 'UPDATE' AND grantee <> current_user
    LOOP
        EXECUTE format('REVOKE UPDATE ON public.outbox FROM %I', granted.grantee);
        EXECUTE format('GRANT UPDATE (published_at) ON public.outbox TO %I', granted.grantee);
        EXECUTE format('REVOKE INSERT, DELETE, TRUNCATE ON public.outbox_lease FROM %I', granted.grantee);
    END LOOP;
END $$;

-- migrate:down
-- Forward only: a rollback is another migration (expand and contract).
