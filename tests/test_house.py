"""Rules about imports between folders, and about declarations that must not be repeated."""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from typer.core import TyperOption

from d3mlx.cli.main import COMMANDS, command_function, load_command
from d3mlx.decoding.options import options_of
from d3mlx.decoding.presets import PRESETS

ROOT = Path(__file__).parents[1]
ROOMS = {"d3mlx": ROOT / "d3mlx", "d3mlx.kernels": ROOT / "kernels", "d3mlx.convert": ROOT / "convert"}


@cache
def imports(path: Path) -> set[str]:
    """Return the modules that a file imports anywhere, and the names that it imports from them."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return imported


@cache
def modules() -> dict[str, Path]:
    """Return the file of every module of the product, by the module's name."""
    named = {}
    for room, folder in ({**ROOMS, "d3mlx.cli": ROOT / "cli"}).items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            named[".".join((room, *parts))] = path
    return named


def importers(target: str) -> set[str]:
    """Return the modules that import `target` or a name inside it."""
    return {
        name
        for name, path in modules().items()
        if any(other == target or other.startswith(f"{target}.") for other in imports(path))
    }


def outside(names: set[str], *rooms: str) -> set[str]:
    return {name for name in names if not any(name == room or name.startswith(f"{room}.") for room in rooms)}


def test_nothing_imports_the_research() -> None:
    assert outside(importers("d3mlx.research"), "d3mlx.research") == set()
    assert importers("d3mlx.research")


def test_the_runtime_imports_neither_the_command_line_nor_the_instruments() -> None:
    assert outside(importers("d3mlx.cli"), "d3mlx.cli", "d3mlx.research") == {"d3mlx.__main__"}
    assert outside(importers("d3mlx.bench"), "d3mlx.bench", "d3mlx.cli", "d3mlx.research") == set()


def test_kernels_and_models_do_not_import_the_layers_above_them() -> None:
    above = ("d3mlx.engine", "d3mlx.request", "d3mlx.batch", "d3mlx.generation", "d3mlx.cache", "d3mlx.decoding")
    for target in above:
        assert not {name for name in importers(target) if name.startswith(("d3mlx.kernels.", "d3mlx.models."))}
    high = ("d3mlx.generation", "d3mlx.batch", "d3mlx.distill", "d3mlx.evaluate", "d3mlx.checkpoints.loader")
    for target in high:
        core = {"d3mlx.engine", "d3mlx.request", "d3mlx.cache", "d3mlx.canvas"}
        assert not {name for name in importers(target) if name in core or name.startswith("d3mlx.decoding.")}


def test_commands_do_not_import_each_other() -> None:
    for name in COMMANDS:
        assert importers(f"d3mlx.cli.{name}") == set()


def test_the_list_of_commands_has_the_first_sentence_of_each_command() -> None:
    """The list repeats these sentences because it must not import the commands."""
    for name, entry in COMMANDS.items():
        assert (command_function(name).__doc__ or "").startswith(entry.summary)


def test_the_folder_of_commands_has_only_files_of_commands_and_helpers() -> None:
    helpers = {"__init__", "main", "entry", "common", "decoder_flags", "loading", "session", "standard_input"}
    assert {path.stem for path in (ROOT / "cli").glob("*.py")} == helpers | set(COMMANDS)


def test_commands_import_at_the_top_of_the_file() -> None:
    late = set()
    for path in (ROOT / "cli").rglob("*.py"):
        functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
        inner = [node for function in functions for node in ast.walk(function)]
        if any(isinstance(node, ast.Import | ast.ImportFrom) for node in inner):
            late.add(path.name)
    assert late == {"entry.py"}


def test_the_command_line_names_no_option_of_a_decoder() -> None:
    """Flags are made from declarations. The names left out also appear in `eval`, tables and records."""
    names = {name for kind in PRESETS.values() for name in options_of(kind)}
    commands = [path for module, path in modules().items() if module.startswith("d3mlx.cli.")]
    for name in names - {"threshold", "steps", "cache", "block_size", "rows"}:
        flag = re.compile(rf"[\"']-*{name}[\"']|--{name.replace('_', '-')}\b")
        assert not [path.name for path in commands if flag.search(path.read_text())], name


FAMILIES = re.compile(r"""family\s*(==|!=|in)|(==|!=)\s*["'](llada|dream)["']|["'](llada|dream)["']\s*:""")


def test_no_other_file_checks_the_family_of_a_model() -> None:
    """A family's file has its traits. Recipes of distillation have the names of the families that they are made for."""
    asking = {name for name, path in modules().items() if FAMILIES.search(path.read_text())}
    assert {name for name in outside(asking, "d3mlx.research") if not name.startswith("d3mlx.models.")} <= {
        "d3mlx.distill.config"
    }


OWN_HELP = {"--resume", "--adapter-path", "--batch-size", "--data", "--dequantize", "--json", "--q-bits", "--seed"}
"""Options that mean different things in different commands, such as a folder to read and a folder to write."""


def test_an_option_has_the_same_help_in_all_commands() -> None:
    texts: dict[str, set[str]] = {}
    for name in COMMANDS:
        for parameter in load_command(name).params:
            if isinstance(parameter, TyperOption) and not parameter.hidden:
                texts.setdefault(parameter.opts[0], set()).add(str(parameter.help).split(" [dim]")[0])
    assert {name for name, helps in texts.items() if len(helps) > 1} <= OWN_HELP | decoder_flags()


def decoder_flags() -> set[str]:
    """Return the flags of decoders, which the commands describe for different sets of decoders."""
    return {f"--{option.flag}" for kind in PRESETS.values() for option in options_of(kind).values()}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_help_page_has_an_example_of_its_command(name: str) -> None:
    command = load_command(name)
    example = str(command.help).rpartition("Example: ")[2]
    program, subcommand, *arguments = shlex.split(example)
    assert (program, subcommand) == ("d3mlx", name)
    # Options that exist and values of their types: the command itself does not run.
    assert command.make_context(name, arguments).params
