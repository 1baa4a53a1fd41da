"""The audit trail: who has done what that matters to security, kept where nobody changes it (docs/audit.md)."""
