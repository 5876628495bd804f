"""The installed version, as pip knows it."""

from importlib.metadata import version

VERSION = version("d3mlx")


def versions() -> dict[str, str]:
    """Return the versions of the packages that a run depends on, by name."""
    return {name: version(name) for name in ("d3mlx", "mlx", "mlx-lm")}
