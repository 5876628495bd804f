"""The output of commands: the live canvas, streams, progress and tables."""
