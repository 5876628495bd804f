"""Decoders: a schedule, an acceptance rule and a row policy, each a frozen config with explicit state."""
