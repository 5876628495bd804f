"""How the demonstration models are built and the measurements in docs/results are made. Not part of the wheel."""
