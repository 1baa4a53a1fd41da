-- migrate:up transaction:false
-- An order is paid by one attempt, whatever the service believes; and a refund finds it without reading them all.
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS payments_one_approved_idx ON payments (order_id) WHERE status = 'approved';

-- migrate:down
-- Forward only: a rollback is another migration (expand and contract).
