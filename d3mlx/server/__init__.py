"""The server: HTTP, the protocols of clients, and the worker that owns the model."""
