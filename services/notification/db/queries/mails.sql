-- name: InsertMail :exec
INSERT INTO mails (event_id, kind, user_id, data, occurred_at, traceparent)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT DO NOTHING;

-- name: ClaimMails :many
-- Counted and put off before they are tried: one whose process dies is tried again when the lease is over. Of kinds that
-- only a later release knows, that release sends them.
UPDATE mails
SET attempts = attempts + 1, next_attempt_at = now() + sqlc.arg(lease_seconds)::float8 * interval '1 second'
WHERE event_id IN (
    SELECT due.event_id FROM mails AS due
    WHERE due.state = 'waiting' AND due.next_attempt_at <= now() AND due.kind = ANY(sqlc.arg(kinds)::text[])
    ORDER BY due.next_attempt_at
    LIMIT sqlc.arg(row_limit)
    FOR UPDATE SKIP LOCKED
)
RETURNING event_id, kind, user_id, data, occurred_at, traceparent, attempts;

-- name: EndMail :execrows
-- Only by whoever has the lease: later attempts are another's.
UPDATE mails
SET state = sqlc.arg(state)::mail_state, last_error = sqlc.arg(error), ended_at = now()
WHERE event_id = sqlc.arg(event_id) AND attempts = sqlc.arg(attempts) AND state = 'waiting';

-- name: PostponeMail :execrows
UPDATE mails
SET next_attempt_at = now() + sqlc.arg(pause_seconds)::float8 * interval '1 second', last_error = sqlc.arg(error),
    attempts = attempts - sqlc.arg(uncounted)::int
WHERE event_id = sqlc.arg(event_id) AND attempts = sqlc.arg(attempts) AND state = 'waiting';

-- name: RecallMails :execrows
-- What is put off further than anything is: its clock was ahead.
UPDATE mails SET next_attempt_at = now()
WHERE state = 'waiting' AND next_attempt_at > now() + sqlc.arg(furthest_seconds)::float8 * interval '1 second';

-- name: MeasureMails :one
-- How many wait, and since how many seconds the eldest does.
SELECT count(*) AS waiting, coalesce(extract(epoch FROM now() - min(noted_at)), 0)::float8 AS age
FROM (SELECT noted_at FROM mails WHERE state = 'waiting' LIMIT sqlc.arg(most)) AS waiting;

-- name: ForgetMails :execrows
-- By the clock that says when they ended: by another one, which is wrong, all of them would be old.
DELETE FROM mails
WHERE event_id IN (
    SELECT old.event_id FROM mails AS old
    WHERE old.state <> 'waiting' AND old.ended_at < now() - sqlc.arg(memory_seconds)::float8 * interval '1 second'
    ORDER BY old.ended_at
    LIMIT sqlc.arg(row_limit)
);
