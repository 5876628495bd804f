"""Type-check the package with the layout of an installation.

In the root of the repository, mypy sees `d3mlx/` without the folders that install into it, and skips most of the code.
So this check copies the tree to a temporary folder with the layout of an installation.

    python -m tests.check_types
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
INSIDE = ("convert", "kernels", "cli")
"""Top-level folders that install as subpackages of d3mlx."""


def stage(folder: Path) -> Path:
    """Copy the package into `folder` with the layout of an installation. Return the package's folder."""
    package = folder / "d3mlx"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "d3mlx", package, ignore=ignore)
    for name in INSIDE:
        shutil.copytree(ROOT / name, package / name, ignore=ignore)
    return package


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run mypy on the package staged in `folder`."""
    config, cache = ROOT / "pyproject.toml", ROOT / ".mypy_cache"
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), "--cache-dir", str(cache), "-p", "d3mlx"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        stage(Path(folder))
        done = check(Path(folder))
    sys.stdout.write(done.stdout + done.stderr)
    sys.exit(done.returncode)
