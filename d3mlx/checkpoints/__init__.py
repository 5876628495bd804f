"""Checkpoint folders: found or downloaded, checked, loaded as a model and a tokenizer."""
