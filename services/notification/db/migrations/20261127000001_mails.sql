-- migrate:up
-- Which events have been acted on (chassis.events.inbox).
CREATE TABLE event_inbox (
    consumer text NOT NULL,
    source text NOT NULL,
    event_id uuid NOT NULL,
    handled_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, source, event_id)
);
CREATE INDEX event_inbox_handled_at ON event_inbox (handled_at);

CREATE TYPE mail_state AS ENUM (
    -- It is to be sent, or sent again.
    'waiting',
    -- The server has taken it.
    'sent',
    -- The recipient does not want this kind, or is gone or disabled.
    'unwanted', 'no_recipient',
    -- The server will never take it; it was tried as often as may be.
    'refused', 'given_up'
);

-- A mail for each event, written in the transaction of the event's row in the inbox.
CREATE TABLE mails (
    event_id uuid PRIMARY KEY,
    kind text NOT NULL,
    user_id uuid NOT NULL,
    -- The event's message, of which the mail is made when it is sent.
    data bytea NOT NULL,
    occurred_at timestamptz NOT NULL,
    traceparent text NOT NULL,
    state mail_state NOT NULL DEFAULT 'waiting',
    -- How often it was begun; whoever begins counts first.
    attempts int NOT NULL DEFAULT 0,
    -- Nobody else begins it before: the end of a lease, or of a pause.
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    -- Why it was not sent, in words of ours: no address, nothing that a server has said.
    last_error text NOT NULL DEFAULT '',
    noted_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz
);
CREATE INDEX mails_due ON mails (next_attempt_at) WHERE state = 'waiting';
CREATE INDEX mails_ended ON mails (ended_at) WHERE state <> 'waiting';

-- What users have switched off. Who has no row has switched nothing off.
CREATE TABLE preferences (
    user_id uuid PRIMARY KEY,
    switched_off text[] NOT NULL,
    version bigint NOT NULL,
    updated_at timestamptz NOT NULL
);

-- migrate:down
-- Forward only: a rollback is another migration (expand and contract).
