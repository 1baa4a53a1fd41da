"""Where a stack on one machine keeps what its processes tell of themselves, and shows it: `python -m devstack.console`.

`spans` keeps what OTLP brings, for `backend trace`; `server` is the HTTP in front of it.
"""
