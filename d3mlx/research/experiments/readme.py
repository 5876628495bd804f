"""Generated parts of README.md: what stands between two marks is replaced by what an experiment found."""

from __future__ import annotations

from pathlib import Path

from d3mlx.errors import DataError
from d3mlx.files import write_text


def around(readme: Path, name: str) -> tuple[str, str]:
    """What stands up to the line `<!-- name -->` and from `<!-- /name -->` on. Raises DataError without these lines."""
    old = readme.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    if old.count(begin) != 1 or old.count(end) != 1 or old.index(begin) > old.index(end):
        raise DataError(f"{readme} needs one line {begin.strip()} and one {end.strip()} after it, to write between.")
    return old.split(begin)[0] + begin, end + old.split(end)[1]


def put(readme: Path, name: str, text: str) -> None:
    """Write `text` between the lines of that name. Raises DataError as `around` does."""
    before, after = around(readme, name)
    write_text(readme, f"{before}\n{text.strip()}\n\n{after}")


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
