"""Check the English of code and documentation: phrases, spelling, and first words of docstrings.

    python -m tests.check_words [--report] [PATH ...]

The rules are in CONTRIBUTING.md. The exit status is 1 if a rule is broken. With --report, count the words that are
often used in a sense that readers do not expect, and the lengths of sentences on the pages.
"""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

PHRASES = {
    r"(?<!here )\b(?:is|are|was|were) no\b(?! (?:longer|more|less|greater|larger|smaller))": "is not a",
    r"\bno use for\b": "does not take",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"\banew\b": "again",
    r"\bsurer?\b(?<!make sure)": "more confident",
    r"\bmeanwhile\b|\bat last\b|\bbesides\b": "nothing, or 'at the same time', 'finally', 'also'",
    r"\bcomes? to\b|\bcame to\b": "is, or 'results in'",
    r"\bso (?:many|much)\b": "the number",
    r"\b(?:tokens?|rows?|forwards?|ms|launch(?:es)?|seconds?|bytes?|bits?) an? "
    r"(?:forward|token|step|row|answer|second|block|problem|layer|launch|batch|request|weight|position)\b": "per",
    r"\bfor good\b": "permanently",
    r"\bit seems\b": "probably",
    r"\blies?\b": "is",
    r"\blay\b": "put",
    r"\b(?:stands?|stood)\b(?! (?:for|in for))": "is",
    r"\bholds\b": "contains",
    r"\btakes? part\b|\btook part\b": "is active",
    r"\bhence\b|\bthereby\b|\btherein\b|\bwhereas\b|\bthus\b|\bthereof\b": "so",
    r"\bbehind\b": "after",
    r"\bin turns\b|\bin one go\b": "alternately, or 'at once'",
    r"\bunless given\b": "[default: ...]",
    r"\bought to\b|\bshall\b": "must",
    r"\bnothing but\b": "only",
    r"\bat hand\b|\bto hand\b": "available",
    r"\bhappens to\b": "nothing",
}
"""Phrases without a good use, each with what to write."""

SPELLINGS = re.compile(
    r"\b(?:behaviou?r(?<=our)|colou?r(?<=our)|favou?r(?<=our)|neighbou?r(?<=our))\w*"
    r"|\b(?:initiali|normali|quanti|reali|generali|optimi|minimi|maximi|recogni|summari|organi|seriali|speciali|"
    r"tokeni|vectori)s(?:e[sd]?|ing|ation)\b"
    r"|\b(?:grey|modelling|labelled|labelling|distil|fulfil|catalogue|analyse[sd]?|whilst|amongst|towards|centre)\b",
    re.IGNORECASE,
)
"""British spellings. The product uses American ones."""

COUNTED = ("right", "one", "place", "found", "whole", "kept", "asked", "told", "such", "what", "hold", "there")
"""Words that are good in one sense and unclear in others."""

VERBS = frozenset((ROOT / "tests" / "verbs.txt").read_text().split())
"""First words of a function's docstring."""

UNREAD = (
    "tests/golden/cases/", "tests/check_words.py", "d3mlx/data/stories/wordings.py",
    "d3mlx/data/stories/amounts.py", "d3mlx/data/stories/measures.py", "d3mlx/data/stories/questions.py",
    "d3mlx/data/stories/solutions.py", "docs/help.md", "docs/decoders.md",
)  # fmt: skip
"""Files that this check does not read: itself, texts of problems, and pages that are generated from checked texts."""

Fault = tuple[str, int, str]


def files(paths: Iterable[str]) -> list[Path]:
    """Return the tracked files to check: all of them, or those below `paths`."""
    listed = subprocess.run(["git", "ls-files", *paths], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [
        ROOT / name
        for name in listed.splitlines()
        if name.endswith((".py", ".md", ".toml", ".yml", "Makefile")) and not name.startswith(UNREAD)
    ]


def phrases(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line number of each unwanted phrase or spelling in `text`, and a sentence about it."""
    patterns = [(re.compile(pattern, re.IGNORECASE), instead) for pattern, instead in PHRASES.items()]
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, instead in patterns:
            for match in pattern.finditer(line):
                yield number, f"'{match[0]}': write {instead}"
        for match in SPELLINGS.finditer(line):
            yield number, f"'{match[0]}': use the American spelling"


def begins_well(function: ast.FunctionDef | ast.AsyncFunctionDef, first: str) -> bool:
    """Return whether `first` may begin the docstring of a function. A test may state the behavior that it checks."""
    return function.name.startswith("test_") or first.rstrip(":,.") in VERBS


def docstrings(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line number of each docstring whose first word breaks a rule, and a sentence about it."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            continue
        first = (ast.get_docstring(node) or "").split(maxsplit=1)[:1]
        if not first:
            continue
        if first[0] == "What":
            yield node.body[0].lineno, "'What ...': name the thing"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not begins_well(node, first[0]):
            yield node.body[0].lineno, f"'{first[0]}': begin the docstring of a function with a verb"


def faults(path: Path) -> Iterator[Fault]:
    """Yield the faults of a file: its name, the line, and a sentence."""
    text, name = path.read_text(), str(path.relative_to(ROOT))
    yield from ((name, *fault) for fault in phrases(text))
    if path.suffix == ".py":
        yield from ((name, *fault) for fault in docstrings(text))


def sentences(markdown: str) -> list[int]:
    """Return the number of words of each sentence of prose: no code blocks, tables or headings."""
    prose = re.sub(r"```.*?```|<!--.*?-->|!\[.*?\]\(.*?\)", "", markdown, flags=re.DOTALL)
    prose = re.sub(r"\]\([^)]*\)", "]", prose)
    blocks = [block for block in re.split(r"\n\s*\n|\n(?=[-*] |\d+\. )", prose) if not re.match(r"\s*[#|]", block)]
    parts = [part for block in blocks for part in re.split(r"(?<=[.:?!])\s+", block.strip())]
    return [count for part in parts if (count := len(re.findall(r"[\w`-]*\w[\w`./-]*", part)))]


def report(paths: list[Path]) -> None:
    """Print counts of words in all files, and of the sentences of each page."""
    text = "\n".join(path.read_text() for path in paths)
    counts = {word: len(re.findall(rf"\b{word}\b", text, re.IGNORECASE)) for word in COUNTED}
    sys.stdout.write("Words: " + ", ".join(f"{word} {count}" for word, count in counts.items()) + "\n")
    for path in paths:
        lengths = sentences(path.read_text()) if path.suffix == ".md" else []
        if len(lengths) > 9:
            median, longest = statistics.median(lengths), statistics.quantiles(lengths, n=10)[-1]
            name, sizes = path.relative_to(ROOT), f"{median:g} (median) and {longest:g} (90 %)"
            sys.stdout.write(f"{name}: {sum(lengths)} words, sentences of {sizes} words\n")


def main() -> None:
    """Print the faults below the paths of the command line, and exit with status 1 if there are any."""
    paths = files(name for name in sys.argv[1:] if not name.startswith("--"))
    broken = [fault for path in paths for fault in faults(path)]
    for name, line, sentence in sorted(broken):
        sys.stdout.write(f"{name}:{line}: {sentence}\n")
    if "--report" in sys.argv:
        report(paths)
    sys.stdout.write(f"Words: {len(broken)} faults in {len(paths)} files.\n")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
