-- migrate:up
-- By whom and under which number an order was sent; null of other steps, and of those that an older service has made, where
-- the reason has both.
ALTER TABLE order_transitions ADD COLUMN carrier text;
ALTER TABLE order_transitions ADD COLUMN tracking_number text;

-- migrate:down
-- Forward only: a rollback is another migration (expand and contract).
