"""Writes the parts of the documentation that follow from the code: options of decoders, help pages, sizes of models.

python docs/generate.py [--check]
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from d3mlx.cli.decoders import default_text, first_sentence, values_text
from d3mlx.cli.main import COMMANDS
from d3mlx.decoding.options import options_of
from d3mlx.decoding.presets import PRESETS

DOCS = Path(__file__).parent
WIDTH = 100
"""Columns of a help page."""


def decoders_page() -> str:
    """Return docs/decoders.md: the written part, then a table of options for each decoder."""
    parts = [(DOCS / "decoders.head.md").read_text()]
    for name, kind in PRESETS.items():
        rows = [
            f"| `--{option.flag}` | {values_text(option)} | {default_text(option)} | {option.help} |"
            for option in options_of(kind).values()
        ]
        table = "\n".join(["| Option | Values | Default | Meaning |", "|---|---|---|---|", *rows])
        parts.append(f"## Options of {name}\n\n{first_sentence(kind)}\n\n{table}\n")
    return "\n".join(parts)


def help_of(*arguments: str) -> str:
    """Return a help page as a terminal of `WIDTH` columns shows it."""
    environment = os.environ | {"COLUMNS": str(WIDTH), "TERMINAL_WIDTH": str(WIDTH), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "d3mlx", *arguments, "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines())


def help_page() -> str:
    """Return docs/help.md: the output of --help of every command."""
    parts = ["# Help pages\n\nThe output of `--help`.\n", f"## d3mlx\n\n```\n{help_of()}\n```\n"]
    parts += [f"## d3mlx {name}\n\n```\n{help_of(name)}\n```\n" for name in COMMANDS]
    return "\n".join(parts)


PAGES = {"decoders.md": decoders_page, "help.md": help_page}


def main() -> None:
    """Write the pages, or with --check exit with status 1 if one of them is out of date."""
    stale = []
    for name, page in PAGES.items():
        text, path = page(), DOCS / name
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.write_text(text)
    if stale:
        sys.stderr.write(f"{'Out of date' if '--check' in sys.argv else 'Written'}: {', '.join(stale)}\n")
    sys.exit(1 if stale and "--check" in sys.argv else 0)


if __name__ == "__main__":
    main()
