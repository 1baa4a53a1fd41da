"""The HTTP side of the chassis: an application made of a contract's operations."""
