-- migrate:up
-- A sale changes the stock and its version, not the description and its own.
ALTER TABLE products ADD COLUMN stock_version bigint NOT NULL DEFAULT 1;
-- What a search looks in: chassis.text.search_key of the name; null until the service has filled it in.
ALTER TABLE products ADD COLUMN search_key text;
CREATE INDEX products_without_search_key_idx ON products (id) WHERE search_key IS NULL;

-- "Newest first" goes by the time that is shown, then by id.
CREATE INDEX orders_user_id_created_at_id_idx ON orders (user_id, created_at DESC, id DESC);
CREATE INDEX orders_created_at_id_idx ON orders (created_at DESC, id DESC);

-- What happened stays: history and stock movements are only ever added to, an attempt to pay only ends, and only what
-- is forgotten on purpose can be deleted. Holds for every role the schema's owner has granted more to.
DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN
        SELECT DISTINCT grantee, table_name FROM information_schema.role_table_grants
        WHERE table_schema = 'public' AND grantee <> current_user AND privilege_type IN ('UPDATE', 'DELETE')
    LOOP
        IF granted.table_name <> 'idempotency_keys' THEN
            EXECUTE format('REVOKE DELETE, TRUNCATE ON public.%I FROM %I', granted.table_name, granted.grantee);
        END IF;
        IF granted.table_name IN ('order_transitions', 'stock_changes', 'order_items') THEN
            EXECUTE format('REVOKE UPDATE ON public.%I FROM %I', granted.table_name, granted.grantee);
        ELSIF granted.table_name = 'payments' THEN
            EXECUTE format('REVOKE UPDATE ON public.payments FROM %I', granted.grantee);
            EXECUTE format(
                'GRANT UPDATE (status, updated_at, checks, next_check_at) ON public.payments TO %I', granted.grantee
            );
        ELSIF granted.table_name = 'orders' THEN
            EXECUTE format('REVOKE UPDATE ON public.orders FROM %I', granted.grantee);
            EXECUTE format(
                'GRANT UPDATE (status, version, updated_at, expires_at) ON public.orders TO %I', granted.grantee
            );
        END IF;
    END LOOP;
END $$;

-- An outcome, once recorded, is the outcome.
CREATE FUNCTION payment_outcome_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'payment % has its outcome', OLD.id USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER payment_outcome_is_final BEFORE UPDATE ON payments
    FOR EACH ROW WHEN (OLD.status <> 'processing') EXECUTE FUNCTION payment_outcome_is_final();

-- migrate:down
-- Forward only: a rollback is another migration (expand and contract).
