"""Experiments that measure what the documentation claims about decoders and students. Each is one command.

They write the tables of docs/results.
"""
