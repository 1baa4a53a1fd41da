-- After a backup has been restored (`backend restore`): what waits for its payment waits for another hour. The provider may have
-- taken money for it since; until that is compared, nothing expires.
UPDATE orders SET expires_at = greatest(expires_at, now() + interval '1 hour') WHERE status = 'pending_payment';
