"""Evaluation: tasks and their scores, runs that can be resumed, accuracy over parallelism."""
