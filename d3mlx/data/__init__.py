"""The embedded model, and the problems and tokenizer it was made with."""
