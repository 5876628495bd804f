"""`d3mlx fuse`: fold adapters into the weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from d3mlx.checkpoints.loader import EMBEDDED
from d3mlx.distill.fuse import fuse as fuse_adapters


def fuse(
    adapter_path: Annotated[Path, typer.Option(help="Folder of the adapters.")] = Path("adapters"),
    save_path: Annotated[Path, typer.Option(help="Folder of the new model; it must not exist.")] = Path("fused_model"),
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Folder, hub id or shipped model that the adapters are for."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    dequantize: Annotated[
        bool, typer.Option("--dequantize", help="Write plain floats; nothing of the adapters is lost to rounding.")
    ] = False,
) -> None:
    """Fold adapters into a model's weights.

    Writes a model folder with LoRA adapters, or fully trained weights, folded in.

    Quantized weights are quantized again, and the error that adds is reported beside what the adapters changed.
    """

    done = fuse_adapters(EMBEDDED if model is None else model, adapter_path, save_path, dequantize, revision)
    what = f"{done.layers} adapted layers" if done.layers else "Fully trained weights"
    sys.stderr.write(f"{what} folded into {save_path}.\n")
    if done.error:
        advice = " Most of it is lost in rounding: use --dequantize." if done.share >= 1 else ""
        sys.stderr.write(
            f"Weights changed by {done.change:.2e} (root mean square); quantizing them again adds an error of "
            f"{done.error:.2e}, {done.share:.0%} of that.{advice}\n"
        )
