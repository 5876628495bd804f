"""Instruments: how long a forward takes on this machine, what the paper predicts, and what is kept of it."""
