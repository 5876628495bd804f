"""How the demonstration models are built and the measurements in README.md are made. Not part of the wheel."""
