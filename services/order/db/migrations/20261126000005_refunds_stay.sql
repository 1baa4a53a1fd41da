-- migrate:up
-- What was asked for when a refund began stays as it was: only how far it is changes, and one that has succeeded has.
DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN
        SELECT DISTINCT grantee FROM information_schema.role_table_grants
        WHERE table_schema = 'public' AND table_name = 'refunds' AND privilege_type = 'UPDATE' AND grantee <> current_user
    LOOP
        EXECUTE format('REVOKE UPDATE ON public.refunds FROM %I', granted.grantee);
        EXECUTE format(
            'GRANT UPDATE (status, attempts, last_error, next_attempt_at, updated_at) ON public.refunds TO %I',
            granted.grantee
        );
    END LOOP;
END $$;

CREATE FUNCTION refund_success_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the refund of order % has succeeded', OLD.order_id USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER refund_success_is_final BEFORE UPDATE ON refunds
    FOR EACH ROW WHEN (OLD.status = 'succeeded') EXECUTE FUNCTION refund_success_is_final();

-- migrate:down
-- Forward only: a rollback is another migration (expand and contract).
