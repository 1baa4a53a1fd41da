"""The public REST API: sessions and tokens, aggregation, client-specific shapes, permission checks."""
