"""Generated parts of README.md: what stands between two marks is replaced by what an experiment found."""

from __future__ import annotations

from pathlib import Path

from d3mlx.errors import DataError
from d3mlx.files import write_text


def put(readme: Path, name: str, text: str) -> None:
    """Write `text` between `<!-- name -->` and `<!-- /name -->`. Raises DataError where the marks are not there."""
    old = readme.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    if old.count(begin) != 1 or old.count(end) != 1 or old.index(begin) > old.index(end):
        raise DataError(f"{readme} needs one line {begin.strip()} and one {end.strip()} after it, to write between.")
    before, after = old.split(begin)[0], old.split(end)[1]
    write_text(readme, f"{before}{begin}\n{text.strip()}\n\n{end}{after}")


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
