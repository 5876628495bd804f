"""In the documentation, generated parts are up to date, links are valid, and commands without downloads run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "results").glob("*.md"))]
NOT_HERE = re.compile(
    r"GSAI-ML|Dream-org|path/to|llada-4bit|\bmake\b|mlx\.launch|pip install|serve|curl|research|prompts\.jsonl|source "
)
"""Lines that need a download, a trained model, or a clone of the repository with make."""


SHORT = {"--limit": 3, "--iters": 1, "--count": 2, "--seconds": 1}
"""Small numbers that replace those on the pages, so that the tests take little time."""


def shortened(block: str) -> str:
    """Return a shell block that takes little time."""
    for option, number in SHORT.items():
        block = re.sub(rf"{option} \d+", f"{option} {number}", block)
    return block


def shell_blocks() -> list[tuple[str, str]]:
    """Return every shell block that runs offline, each with the name of its page."""
    blocks = []
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            if not NOT_HERE.search(block):
                blocks.append((page.name, block))
    return blocks


def test_generated_parts_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stderr}Run python docs/generate.py."


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {title.lower().replace(" ", "-") for title in titles}, target


@pytest.mark.parametrize(("page", "block"), shell_blocks(), ids=lambda value: value[:40].replace("\n", " "))
def test_commands_run_as_printed(page: str, block: str, tmp_path: Path) -> None:
    commands = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": commands}
    done = subprocess.run(
        ["bash", "-ec", shortened(block)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_python_blocks_run_as_printed(tmp_path: Path) -> None:
    """The blocks of each page run in one process."""
    for page in (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("chat", "infill", "python"))):
        blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        assert blocks
        done = subprocess.run([sys.executable, "-c", "\n".join(blocks)], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
