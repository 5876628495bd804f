"""Reference cases of the published decoders, and how to run them. README.md says where they come from."""
