"""Generated code only: messages, stubs, HTTP models, the client. Never edited."""
