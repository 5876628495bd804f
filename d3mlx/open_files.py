"""Import of mlx-lm under a low limit of open files. Its import sets the limit, which the system may refuse."""

from __future__ import annotations

import resource

WANTED = 4096
"""The hard limit that mlx-lm sets."""


def import_mlx_lm() -> None:
    """Import mlx-lm if the hard limit is lower than it wants. The limit stays as it is."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= WANTED:
        return
    setrlimit = resource.setrlimit
    resource.setrlimit = lambda kind, limits: None
    try:
        import mlx_lm.utils  # noqa: F401
    finally:
        resource.setrlimit = setrlimit
