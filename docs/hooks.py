"""Hooks for MkDocs: pages whose files are outside docs/, and the links between all pages."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "kernels/README.md": "kernels.md",
    "tests/metal/README.md": "emulator.md",
    **{f"d3mlx/data/{name}/README.md": f"cards/{name}.md" for name in ("embedded", "teacher")},
}
"""Files of the repository that are pages of the site, and their names there."""


def on_files(files: Any, config: Any) -> Any:
    """Add the pages whose files are outside docs/."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Return the text of a page with links between files changed to links between pages."""
    name = page.file.src_uri
    source = {new: old for old, new in OUTSIDE.items()}.get(name, f"docs/{name}")

    def relinked(match: re.Match[str]) -> str:
        path, hash_sign, heading = match[1].partition("#")
        if "://" in path or not path:
            return match[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        target = OUTSIDE.get(target, target.removeprefix("docs/"))
        return f"]({posixpath.relpath(target, posixpath.dirname(name) or '.')}{hash_sign}{heading})"

    return re.sub(r"\]\(([^)\s]+)\)", relinked, markdown)
