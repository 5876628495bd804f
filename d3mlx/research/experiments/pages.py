"""The result pages in docs/results. Experiments write the parts between two marks. The rest is written by hand."""

from __future__ import annotations

from pathlib import Path

from d3mlx.errors import DataError
from d3mlx.files import write_text

SELECTIVE = "docs/results/selective.md"
DISTILLATION = "docs/results/distillation.md"
ABLATIONS = "docs/results/ablations.md"
INFILL = "docs/results/infill.md"
CHAT = "docs/results/chat.md"


def around(page: Path, name: str) -> tuple[str, str]:
    """Return the text up to the line `<!-- name -->` and the text from `<!-- /name -->` on.

    Raises DataError if the page does not contain both lines once, in this order.
    """
    content = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    if content.count(begin) != 1 or content.count(end) != 1 or content.index(begin) > content.index(end):
        raise DataError(f"{page} must contain {begin.strip()} and, below it, {end.strip()} once, each on its own line.")
    return content.split(begin)[0] + begin, end + content.split(end)[1]


def between(page: Path, name: str) -> str:
    """Return the generated text between the lines of that name. Raises DataError as `around` does."""
    before, after = around(page, name)
    return page.read_text(encoding="utf-8").removeprefix(before).removesuffix(after).strip()


def put(page: Path, name: str, text: str) -> None:
    """Write `text` between the lines of that name. Raises DataError as `around` does."""
    before, after = around(page, name)
    write_text(page, f"{before}\n{text.strip()}\n\n{after}")


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
