"""The measurements of `d3mlx bench` as plain text, to be pasted into a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from d3mlx.bench.curve import CLEARLY, Curve
from d3mlx.bench.forwards import Forwards
from d3mlx.bench.generation import Decoded
from d3mlx.bench.kernels import READING, tile_rates, vector_rate
from d3mlx.bench.roofline import FORMULA, LAYER, Roofline
from d3mlx.cli.render.profile import profile_table
from d3mlx.profiling import Profile


def table_of(*columns: str) -> Table:
    """Return an empty table with these headings. Only names are aligned to the left."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i or column == "rows" else "left")
    return table


def counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def milliseconds(seconds: float) -> str:
    """Return seconds as milliseconds, with at least three significant figures."""
    return f"{1000 * seconds:.{0 if seconds >= 1 else 1 if seconds >= 0.1 else 2 if seconds >= 0.01 else 3}f}"


def show_forwards(console: Console, forwards: Forwards) -> None:
    smallest = forwards.steps[0]
    console.print(
        f"\nTime per forward with {forwards.context} cached positions, including the head and the token statistics:"
    )
    table = table_of("rows", "median ms", "quartiles", "ms/row", f"relative to {smallest.rows}", "repeats")
    for step in forwards.steps:
        table.add_row(
            str(step.rows),
            milliseconds(step.seconds),
            f"{milliseconds(step.low)} to {milliseconds(step.high)}",
            milliseconds(step.seconds / step.rows),
            f"{step.seconds / smallest.seconds:.2f}",
            str(step.repeats),
        )
    console.print(table)
    if forwards.left_out:
        counts = ", ".join(map(str, forwards.left_out))
        last = counted(forwards.steps[-1].rows, "row")
        console.print(f"Not measured: {counts} rows. A forward of {last} already took a large part of --seconds.")
    prefill = forwards.prefill
    console.print(
        f"Prefill: {forwards.context} tokens in {milliseconds(prefill.seconds)} ms, "
        f"{forwards.prefill_speed:,.1f} tokens/s (median of {prefill.repeats})."
    )


FEW_REPEATS = 5
"""With fewer measurements of a row count, its median may be wrong on a busy machine."""


def show_repeats(console: Console, forwards: Forwards) -> None:
    """Print a warning if some row counts were measured a few times only."""
    if min(step.repeats for step in forwards.steps) < FEW_REPEATS:
        few = f"Some counts were measured fewer than {FEW_REPEATS} times."
        console.print(f"{few} For reliable times, use more --seconds.")


def show_good_counts(console: Console, curve: Curve) -> None:
    """Print which row counts are good on a machine."""
    if good := curve.good_counts():
        words = f"Good row counts: {', '.join(map(str, good))}. After each of them, a row costs clearly more"
        console.print(f"{words} (over {100 * CLEARLY:.0f} %).")
    else:
        console.print("No row count is better than others. A row costs less in a larger forward.")


def show_decoding(console: Console, totals: Mapping[str, Decoded], max_tokens: int) -> None:
    prompts = next(iter(totals.values())).prompts
    console.print(f"\nComplete answers to {counted(prompts, 'prompt')}, canvas of {max_tokens} tokens:")
    table = table_of("decoder", "tokens/s", "ms/forward", "TPF", "RPT", "tokens", "forwards", "rows", "seconds")
    for name, total in totals.items():
        figures = total.figures()
        table.add_row(
            name,
            f"{figures['tokens_per_second']:.2f}",
            milliseconds(figures["seconds_per_forward"]),
            f"{figures['tokens_per_forward']:.2f}",
            f"{figures['rows_per_token']:.1f}",
            str(total.tokens),
            str(total.forwards),
            str(total.rows),
            f"{total.seconds:.2f}",
        )
    console.print(table)


def show_profiles(console: Console, profiles: Mapping[str, Profile]) -> None:
    for name, profile in profiles.items():
        console.print(f"\n{name}, time per stage of the loop:")
        console.print(profile_table(profile))


EXPERT_ROWS = (8, 32)
"""Row counts for which a prediction shows the experts that a forward reads."""


def show_roofline(console: Console, roofline: Roofline, rows: list[int], model: Mapping[str, Any]) -> None:
    chip, cost, giga = roofline.chip, roofline.cost, 1e9
    origin = "assumed, scaled from an M4 Max" if chip.assumed else "from a published prefill"
    console.print(f"PREDICTION for {chip.name}, not a measurement: {FORMULA}")
    console.print(
        f"Model: {model['name']}, {model['weights']}, {model['context']} cached positions.",
        soft_wrap=True,
        markup=False,
    )
    console.print(
        f"bytes = {cost.nbytes(1) / giga:.3f} GB ({cost.nbytes(1) / giga - cost.cache_bytes / giga:.3f} weights, "
        f"{cost.cache_bytes / giga:.3f} K/V); bandwidth = {roofline.bandwidth / giga:.0f} GB/s "
        f"({100 * READING:.0f} % of the published {chip.bandwidth / giga:g})"
    )
    if cost.experts is not None:
        console.print(
            f"These are the bytes of one row. More rows use more of the {cost.experts.count} experts of a layer: "
            + ", ".join(
                f"{count} rows about {cost.experts.distinct(count):.0f}, {cost.nbytes(count) / giga:.2f} GB"
                for count in EXPERT_ROWS
            )
            + ", if all experts are equally likely."
        )
    console.print(
        f"FLOP per row = {cost.flop_per_row / giga:.2f} G ({cost.body_flop / giga:.2f} body, "
        f"{cost.head_flop / giga:.2f} head, {cost.attention_flop / giga:.2f} attention); "
        f"effective = {chip.flops / 1e12:g} TFLOP/s ({origin})"
    )
    rates = [f"{vector_rate(chip) / 1e12:.2f} TFLOP/s for few rows"]
    rates += [f"{rate / 1e12:.2f} in tiles of {size}" for size, rate in tile_rates(chip).items()]
    console.print(
        f"Kernels: {', '.join(rates)}, scaled from public measurements of {'M3 Max' if chip.generation < 5 else 'M5'}. "
        f"Launches: {1e6 * LAYER:.0f} microseconds per layer."
    )
    counts = sorted(set(rows))
    table = table_of("rows", "predicted ms", "ms/row", f"relative to {counts[0]}")
    for count in counts:
        seconds = roofline.seconds(count)
        relative = f"{seconds / roofline.seconds(counts[0]):.2f}"
        table.add_row(str(count), milliseconds(seconds), milliseconds(seconds / count), relative)
    console.print(table)
    show_good_counts(console, roofline.curve(counts))
    console.print(
        "Predicted speed with one row and one token per forward, as in autoregression: "
        f"{roofline.ceiling:.0f} tokens/s."
    )
