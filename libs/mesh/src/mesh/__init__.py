"""The table of services, and what follows from it wherever the backend runs."""
