"""Commands of `backend` by subject, each a module; what they need is imported when they run."""
