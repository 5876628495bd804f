"""`d3mlx fuse`: merge adapters into the weights of a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from d3mlx.checkpoints.loader import EMBEDDED
from d3mlx.cli.common import MODEL, OUTPUT, Model, Revision
from d3mlx.distill.fuse import fuse as fuse_adapters
from d3mlx.terminal import write


def fuse(
    model: Model = None,
    adapter_path: Annotated[Path, typer.Option(help="Folder with the adapters.", rich_help_panel=MODEL)] = Path(
        "adapters"
    ),
    revision: Revision = None,
    save_path: Annotated[Path, typer.Option(help="Output folder. It must not exist.", rich_help_panel=OUTPUT)] = Path(
        "fused_model"
    ),
    dequantize: Annotated[
        bool,
        typer.Option(
            "--dequantize", help="Write weights that are not quantized, for an exact merge.", rich_help_panel=OUTPUT
        ),
    ] = False,
) -> None:
    """Merge adapters into the weights of a model.

    The adapters are LoRA adapters or fully trained weights. The output is a model folder. If the model is quantized,
    the new weights are quantized again, and d3mlx reports the error of this rounding.

    Example: d3mlx fuse --model llada-4bit --adapter-path adapters --save-path student
    """
    merged = fuse_adapters(EMBEDDED if model is None else model, adapter_path, save_path, dequantize, revision)
    subject = f"{merged.layers} adapted layers" if merged.layers else "Fully trained weights"
    write(sys.stderr, f"{subject} merged into {save_path}.\n")
    if merged.error:
        advice = " Most of the change is lost in rounding. Use --dequantize." if merged.share >= 1 else ""
        write(
            sys.stderr,
            f"The adapters change the weights by {merged.change:.2e} (root mean square). Quantization adds an error of "
            f"{merged.error:.2e}, which is {merged.share:.0%} of the change.{advice}\n",
        )
