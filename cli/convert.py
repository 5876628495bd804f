"""`d3mlx convert`: convert a Hugging Face checkpoint to MLX and quantize it."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

from d3mlx.cli.common import MODEL, Revision, human_size
from d3mlx.cli.render.progress import Progress
from d3mlx.convert import Quantization, Recipe
from d3mlx.convert import convert as convert_checkpoint
from d3mlx.convert.card import check_login, upload
from d3mlx.errors import ConfigError
from d3mlx.terminal import write

PRECISION, TARGET = "Precision", "Output"
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_size(text: str) -> int:
    """Return the number of bytes of a size such as 5GB or 256MB. Raises BadParameter."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]B)", text.strip(), re.IGNORECASE)
    number = float(match[1]) * UNITS[match[2].upper()] if match else 0.0
    if not 1 <= number < float("inf"):
        raise typer.BadParameter(f"Invalid size {text!r}. Use a unit, for example 5GB or 256MB.")
    return int(number)


def convert(
    hf_path: Annotated[
        str,
        typer.Option(
            "--hf-path",
            "--model",
            help="Folder or Hugging Face id of the checkpoint.",
            show_default=False,
            rich_help_panel=MODEL,
        ),
    ],
    revision: Revision = None,
    quantize: Annotated[
        bool, typer.Option("--quantize", "-q", help="Quantize the weights.", rich_help_panel=PRECISION)
    ] = False,
    q_bits: Annotated[
        int | None,
        typer.Option(help="Bits per weight: 2, 3, 4, 5, 6 or 8.", show_default="4", rich_help_panel=PRECISION),
    ] = None,
    q_group_size: Annotated[
        int | None,
        typer.Option(
            help="Number of weights that share a scale: 32, 64 or 128.", show_default="64", rich_help_panel=PRECISION
        ),
    ] = None,
    q_mode: Annotated[
        str | None,
        typer.Option(
            help="Quantization mode: affine, mxfp4, nvfp4 or mxfp8. Only affine has bits and groups to choose.",
            show_default="affine",
            rich_help_panel=PRECISION,
        ),
    ] = None,
    quant_predicate: Annotated[
        str | None,
        typer.Option(help="Mixed-bit recipe: mixed_2_6, mixed_3_4, mixed_3_6 or mixed_4_6.", rich_help_panel=PRECISION),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Type of weights that are not quantized: float16, bfloat16 or float32.",
            show_default="from config.json",
            rich_help_panel=PRECISION,
        ),
    ] = None,
    dequantize: Annotated[
        bool,
        typer.Option("--dequantize", "-d", help="Dequantize a quantized model.", rich_help_panel=PRECISION),
    ] = False,
    mlx_path: Annotated[
        str, typer.Option(help="Output folder. It must not exist.", rich_help_panel=TARGET)
    ] = "mlx_model",
    max_shard_size: Annotated[
        str, typer.Option(help="Maximum size of a weight file. One file is kept in memory.", rich_help_panel=TARGET)
    ] = "5GB",
    upload_repo: Annotated[
        str | None, typer.Option(help="Hugging Face id to upload the result to.", rich_help_panel=TARGET)
    ] = None,
) -> None:
    """Convert a Hugging Face checkpoint to MLX and quantize it.

    The weights are read one layer at a time, so a checkpoint can be larger than memory. The embedding and the head are
    quantized like the layers. With a mixed-bit recipe, the head gets the higher number of bits.

    The output folder appears only when it is complete. After Ctrl-C, no files remain.

    Example: d3mlx convert --hf-path GSAI-ML/LLaDA-8B-Instruct --mlx-path llada-4bit -q
    """
    limit = parse_size(max_shard_size)
    details = (q_bits, q_group_size, q_mode, quant_predicate)
    if not quantize and any(detail is not None for detail in details):
        raise ConfigError("--q-bits, --q-group-size, --q-mode and --quant-predicate need --quantize. Add it.")
    quantization = (
        Quantization("affine" if q_mode is None else q_mode, q_bits, q_group_size, quant_predicate)
        if quantize
        else None
    )
    recipe = Recipe(quantization, dequantize, dtype)
    if upload_repo is not None:
        check_login(upload_repo)
    with Progress("Converting", in_bytes=True, late=True) as progress:
        summary = convert_checkpoint(
            hf_path,
            mlx_path,
            recipe,
            revision=revision,
            max_shard_bytes=limit,
            name=upload_repo,
            progress=progress.update,
        )
    files = "1 file" if summary.files == 1 else f"{summary.files} files"
    size = f"{human_size(summary.nbytes)} in {files}, {summary.bits_per_weight:.2f} bits per weight"
    write(sys.stdout, f"Wrote {summary.folder}: {size}.\n")
    if upload_repo is not None:
        write(sys.stdout, f"Uploaded to {upload(summary.folder, upload_repo)}\n")
