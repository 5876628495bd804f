"""`python -m d3mlx` is the `d3mlx` command."""

from d3mlx.cli.entry import main

main()
