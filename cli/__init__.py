"""The `d3mlx` command."""
