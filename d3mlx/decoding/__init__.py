"""Decoders. Each is a schedule, an acceptance rule and a cache policy: frozen configs with explicit state."""
