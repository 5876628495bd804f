"""Builds of the demonstration models, and the experiments of docs/results. Not part of the wheel."""
