-- migrate:up transaction:false
-- How often an order's payment was declined is asked before each further one.
CREATE INDEX CONCURRENTLY IF NOT EXISTS payments_declined_order_id_idx ON payments (order_id) WHERE status = 'declined';

-- migrate:down
-- Forward only: a rollback is another migration (expand and contract).
