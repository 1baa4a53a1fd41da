"""Requests that nobody should send, over every protocol of the edge, and what must not change meanwhile."""
