-- migrate:up
-- State of the built-in sandbox payment provider; a deployment with a real provider never writes here.
CREATE TABLE payment_sandbox_charges (
    reference uuid PRIMARY KEY,
    amount_minor bigint NOT NULL,
    currency text NOT NULL,
    approved boolean NOT NULL,
    refunded boolean NOT NULL DEFAULT false
);

-- migrate:down
-- Forward only: a rollback is another migration (expand and contract).
