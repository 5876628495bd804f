"""Checkpoint folders: download, checks, and loading of the model and the tokenizer."""
