"""`d3mlx decoders`: list the decoders and their options."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from d3mlx.cli.render.printer import printer
from d3mlx.decoding.options import Option, Options, Range, check_choice, options_of
from d3mlx.decoding.presets import PRESETS
from d3mlx.models import families_with


def first_sentence(kind: Any) -> str:
    """Return the first sentence of the docstring of a decoder."""
    return str(kind.__doc__).split("\n")[0]


def default_text(option: Option, kind: type[Options]) -> str:
    """Return the default of an option of a decoder as text, with the families if their defaults differ."""
    if option.note:
        return option.note
    values = {traits.name: option.default_for(traits) for traits in families_with(kind.attention)}
    if len(set(values.values())) == 1:
        return str(next(iter(values.values())))
    return ", ".join(f"{value} ({family})" for family, value in values.items())


def values_text(option: Option) -> str:
    """Return the allowed values of an option as text."""
    if isinstance(option.allowed, Range):
        return option.allowed.bounds
    return ", ".join(map(str, option.allowed)) if option.allowed else f"any {option.kind.__name__}"


def decoders(
    name: Annotated[str | None, typer.Argument(help="Show the options of this decoder.", show_default=False)] = None,
) -> None:
    """List the decoders and their options.

    An option is a flag of d3mlx generate and d3mlx eval: --decoder d3llm --threshold 0.4. In Python it is a keyword
    argument: d3mlx.D3LLM(threshold=0.4).

    Example: d3mlx decoders selective
    """
    console = printer()
    if name is None:
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        for each, kind in PRESETS.items():
            named = [traits.name for traits in families_with(kind.attention) if traits.decoder == each]
            table.add_row(each, first_sentence(kind) + (f" [dim]default for {', '.join(named)}[/]" if named else ""))
        console.print(table)
        console.print("\nRun d3mlx decoders NAME to see the options of a decoder.", highlight=False)
        return
    check_choice("decoder", name, tuple(PRESETS))
    console.print(f"[bold]{name}[/]: {first_sentence(PRESETS[name])}\n", highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("option", "values", "default", "meaning"):
        table.add_column(heading, no_wrap=heading == "option", min_width=0 if heading == "option" else 12)
    for option in options_of(PRESETS[name]).values():
        table.add_row(f"--{option.flag}", values_text(option), default_text(option, PRESETS[name]), option.help)
    console.print(table)
