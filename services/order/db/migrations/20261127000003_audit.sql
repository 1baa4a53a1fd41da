-- migrate:up
-- Who has done what that matters to security: written in the transaction in which it is done (chassis.audit). docs/audit.md says
-- what is kept, and for how long.
CREATE TABLE audit (
    -- A UUIDv7 of `time`.
    id uuid PRIMARY KEY,
    time timestamptz NOT NULL,
    action text NOT NULL,
    -- "user/ID", "service/NAME", "operator/NAME"; empty when nobody knows.
    actor text NOT NULL,
    -- "product/ID"
    subject text NOT NULL,
    -- Empty for what no request did.
    request_id text NOT NULL,
    address text NOT NULL,
    before jsonb NOT NULL,
    after jsonb NOT NULL
);

CREATE INDEX audit_actor_id_idx ON audit (actor, id);
CREATE INDEX audit_subject_id_idx ON audit (subject, id);
CREATE INDEX audit_action_id_idx ON audit (action, id);

-- The one way in which anything leaves the table, for whoever may not delete from it: at most so many of the eldest, and only
-- what is older than 400 days, by this server's clock. A year is what is usually asked for, and a month to ask in.
CREATE FUNCTION forget_audit(most integer) RETURNS integer
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH gone AS (
        DELETE FROM public.audit WHERE id IN (
            SELECT id FROM (SELECT id, time FROM public.audit ORDER BY id LIMIT most) AS eldest
            WHERE time < now() - interval '400 days'
        )
        RETURNING id
    )
    SELECT count(*)::integer FROM gone
$$;
REVOKE EXECUTE ON FUNCTION forget_audit(integer) FROM PUBLIC;

-- A service adds to it and reads it. What it has added stays as it is.
DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN
        SELECT DISTINCT grantee FROM information_schema.role_table_grants
        WHERE table_schema = 'public' AND table_name = 'audit' AND privilege_type = 'INSERT' AND grantee <> current_user
    LOOP
        EXECUTE format('REVOKE ALL ON public.audit FROM %I', granted.grantee);
        EXECUTE format('GRANT SELECT, INSERT ON public.audit TO %I', granted.grantee);
        EXECUTE format('GRANT EXECUTE ON FUNCTION public.forget_audit(integer) TO %I', granted.grantee);
    END LOOP;
END $$;

-- migrate:down
-- Forward only: a rollback is another migration (expand and contract).
