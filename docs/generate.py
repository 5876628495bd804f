"""Write the parts of the documentation that follow from code and results: options, help pages, tables of README.

python docs/generate.py [--check]
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path

WIDTH = 76
"""Width of a help page in characters. Typer reads it during its import."""

os.environ |= {"COLUMNS": str(WIDTH), "TERMINAL_WIDTH": str(WIDTH), "NO_COLOR": "1"}

# ruff: noqa: E402
from d3mlx.bench.shapes import SHAPES, skeleton
from d3mlx.cache import bytes_per_position
from d3mlx.checkpoints.loader import nbytes
from d3mlx.cli.decoders import default_text, first_sentence, values_text
from d3mlx.cli.main import COMMANDS, run
from d3mlx.decoding.options import options_of
from d3mlx.decoding.presets import PRESETS
from d3mlx.models import traits_of

DOCS = Path(__file__).parent


def decoders_page() -> str:
    """Return docs/decoders.md: the written part, then a table of options for each decoder."""
    parts = [(DOCS / "parts" / "decoders.md").read_text()]
    for name, kind in PRESETS.items():
        rows = [
            f"| `--{option.flag}` | {values_text(option)} | {default_text(option, kind)} | {option.help} |"
            for option in options_of(kind).values()
        ]
        table = "\n".join(["| Option | Values | Default | Meaning |", "|---|---|---|---|", *rows])
        parts.append(f"## Options of {name}\n\n{first_sentence(kind)}\n\n{table}\n")
    return "\n".join(parts)


def help_of(*arguments: str) -> str:
    """Return the help page of a command, `WIDTH` characters wide."""
    sys.argv = ["d3mlx", *arguments, "--help"]
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        run()
    return "\n".join(line.rstrip() for line in shown.getvalue().strip("\n").splitlines())


def help_page() -> str:
    """Return docs/help.md: the output of --help of every command."""
    parts = ["# Help pages\n\nThe output of `--help`.\n", f"## d3mlx\n\n```\n{help_of()}\n```\n"]
    parts += [f"## d3mlx {name}\n\n```\n{help_of(name)}\n```\n" for name in COMMANDS]
    return "\n".join(parts)


MODELS = (
    ("GSAI-ML/LLaDA-8B-Instruct", "llada-8b", "general questions"),
    ("d3LLM/d3LLM_LLaDA", "llada-8b", "the same, distilled: many tokens per step"),
    ("GSAI-ML/iLLaDA-8B-Instruct", "illada-8b", "general questions"),
    ("Dream-org/Dream-v0-Instruct-7B", "dream-7b", "general questions"),
    ("Dream-org/Dream-Coder-v0-Instruct-7B", "dream-7b", "code"),
    ("apple/DiffuCoder-7B-cpGRPO", "dream-7b", "code"),
    ("JetLM/SDAR-4B-Chat", "sdar-4b", "general questions"),
    ("JetLM/SDAR-8B-Chat-b32", "sdar-8b", "general questions"),
    ("Efficient-Large-Model/Fast_dLLM_v2_7B", "fast-dllm-v2-7b", "general questions"),
    ("inclusionAI/LLaDA2.1-mini", "llada2-mini", "general questions, code"),
    ("ByteDance-Seed/Stable-DiffCoder-8B-Instruct", "stable-diffcoder-8b", "code"),
)
"""Checkpoints in the table of README: name, shape and purpose."""

POSITIONS = 1024
"""Length of the KV cache that the memory of a model includes."""


def models_table() -> str:
    """Return README's table of models, counted from their shapes."""
    rows = []
    for name, shape_name, purpose in MODELS:
        sizes = SHAPES[shape_name]
        packed = skeleton(sizes, 4)
        cache = POSITIONS * bytes_per_position(packed.args.shape(), itemsize=2, keep=True)
        full, small = nbytes(skeleton(sizes)), nbytes(packed)
        figures = f"{full / 1e9:.1f} GB | {small / 1e9:.1f} GB | {(small + cache) / 1e9:.1f} GB"
        rows.append(f"| {name} | {figures} | {purpose} | `{traits_of(sizes.family).decoder}` |")
    header = ["| Model | Download | 4-bit size | Memory | For | Decoder |", "|---|---|---|---|---|---|"]
    return "\n".join([*header, *rows])


CURVES = (
    ("autoregressive, mlx-lm", None, "autoregressive model of the same size"),
    ("teacher, one per step, blocks of 8", None, "teacher, one token per step, blocks of 8"),
    ("teacher, fast-dllm", 0.9, "teacher, `fast-dllm`, threshold 0.9"),
    ("student, d3llm", 0.5, "student, `d3llm`, threshold 0.5"),
    ("student, selective", 0.5, "student, `selective` (default), threshold 0.5"),
)
"""Points of the report in the table of README: run, threshold and label."""


def decoders_table() -> str:
    """Return README's table of decoders, from the results of the report."""
    report = json.loads((DOCS.parent / "d3mlx/research/experiments/report.json").read_text())
    points = {(run["name"], point["setting"]["value"]): point for run in report["runs"] for point in run["points"]}
    rows = []
    for name, value, label in CURVES:
        point = points[name, value]
        accuracy = f"{100 * point['accuracy']:.1f} %"
        rows.append(f"| {label} | {accuracy} | {point['tokens_per_forward']:.1f} | {point['rows_per_token']:.1f} |")
    header = ["| Decoder | Correct | Tokens per forward | Rows per token |", "|---|---|---|---|"]
    return "\n".join([*header, *rows])


def readme() -> str:
    """Return README.md with its tables written again."""
    text = README.read_text()
    for name, table in (("models", models_table), ("decoders", decoders_table)):
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        head, _, rest = text.partition(begin)
        _, _, tail = rest.partition(end)
        text = f"{head}{begin}\n{table()}\n{end}{tail}"
    return text


README = DOCS.parent / "README.md"
PAGES = {DOCS / "decoders.md": decoders_page, DOCS / "help.md": help_page, README: readme}


def main() -> None:
    """Write the pages, or with --check exit with status 1 if one of them is out of date."""
    check, stale = "--check" in sys.argv, []
    for path, page in PAGES.items():
        text = page()
        if path.exists() and path.read_text() == text:
            continue
        stale.append(path.name)
        if not check:
            path.write_text(text)
    if stale:
        sys.stderr.write(f"{'Out of date' if check else 'Written'}: {', '.join(stale)}\n")
    sys.exit(1 if stale and check else 0)


if __name__ == "__main__":
    main()
