"""Reference cases of the published decoders, and functions that run them. README.md describes their origin."""
