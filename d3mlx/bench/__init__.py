"""Instruments: how long a forward takes on this machine, what published figures predict, and what is kept of it."""
