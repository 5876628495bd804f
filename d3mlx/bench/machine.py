"""Machine and software of a measurement."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

import d3mlx
from d3mlx.version import versions


def device_name() -> str:
    """Return MLX's name of the default device, such as "Apple M4 Max"; on a CPU it ends with " (CPU)"."""
    name = str(mx.device_info().get("device_name", "unknown device"))
    return name if mx.default_device().type == mx.gpu else f"{name} (CPU)"


@dataclass(frozen=True)
class Machine:
    """A machine and its software.

    device_info: from MLX. commit: of the git checkout that contains the package, with "+" if it has changes; None
    without a checkout. preloaded: libraries loaded before MLX's own (LD_PRELOAD), which change the speed of a CPU.
    """

    device: str
    device_info: dict[str, Any]
    system: str
    python: str
    versions: dict[str, str]
    commit: str | None
    preloaded: str | None

    def lines(self) -> list[str]:
        """Return the lines for people to read."""
        named = [f"{name} {number}" for name, number in self.versions.items()]
        source = f" ({self.commit[:10] + '+' * self.commit.endswith('+')})" if self.commit else ""
        memory = self.device_info.get("memory_size") or self.device_info.get("total_memory")
        size = f", {int(memory) / 2**30:.0f} GiB" if memory else ""
        lines = [f"Machine: {self.device}{size}, {self.system}"]
        if self.preloaded:
            lines.append(f"Preloaded: {self.preloaded}")
        return [*lines, f"Software: {named[0]}{source}, {', '.join(named[1:])}, Python {self.python}"]


def this_machine() -> Machine:
    """Return the machine that runs this process."""
    return Machine(
        device=device_name(),
        device_info=dict(mx.device_info()),
        system=platform.platform(),
        python=platform.python_version(),
        versions=versions(),
        commit=git_commit(Path(d3mlx.__file__).parents[1]),
        preloaded=os.environ.get("LD_PRELOAD") or os.environ.get("DYLD_INSERT_LIBRARIES"),
    )


def git_commit(root: Path) -> str | None:
    """Return the commit of a git checkout. None if `root` is not a checkout, or git is not installed."""
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None
