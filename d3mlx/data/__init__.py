"""The built-in models, their problems and tokenizer, and readers of data files."""
