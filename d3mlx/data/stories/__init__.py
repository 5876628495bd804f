"""Arithmetic stories that are composed from facts, and their tokenizer."""
