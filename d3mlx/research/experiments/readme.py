"""The earlier name of `pages`."""

from d3mlx.research.experiments.pages import put, table

__all__ = ["put", "table"]
