"""The installed version, as pip knows it."""

from importlib.metadata import version

VERSION = version("d3mlx")
