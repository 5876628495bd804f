"""Random damage to everything that d3mlx reads. Every command ends with one sentence, and leaves nothing half-written.

`python -m tests.fuzz --seconds 600` prints each failure and the counts. `--seed N --case K` repeats one case.
"""
