"""The backend on one machine with Docker: compose.yaml, and what its jobs do."""
