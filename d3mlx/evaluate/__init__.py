"""Evaluation: tasks and their scoring, runs that can be resumed, accuracy against parallelism."""
