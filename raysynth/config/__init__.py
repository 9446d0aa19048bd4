"""The configuration: its sections put together, read from files, documented."""
