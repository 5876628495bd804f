"""Decoders: a schedule, an acceptance rule and a cache policy, each a frozen config with explicit state."""
