"""Loading of a model and its tokenizer from a local folder or a Hub id."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.models.switch_layers import SwitchLinear
from mlx_lm.utils import dequantize_model, get_total_parameters, load_model

from d3mlx.checkpoints.adapters import with_adapters
from d3mlx.checkpoints.checkpoint import SMALL, Checkpoint, open_checkpoint
from d3mlx.checkpoints.hub import SHIPPED, fetch
from d3mlx.checkpoints.tokenizer import load_tokenizer
from d3mlx.errors import CheckpointError, MemoryLimitError
from d3mlx.models import TrainableModel, get_model_classes

EMBEDDED = str(SHIPPED["embedded"])
"""Folder of the bundled demonstration model."""

TEACHER = str(SHIPPED["teacher"])
"""Folder of the model that the demonstration model is distilled from."""

DTYPES = {"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16, "U32": mx.uint32, "U8": mx.uint8}
"""MLX dtypes of the safetensors dtypes that `check_keys` accepts."""


def load(
    path_or_repo: str | Path = EMBEDDED,
    adapter_path: str | Path | None = None,
    lazy: bool = False,
    revision: str | None = None,
) -> tuple[TrainableModel, Any]:
    """Return the model and the tokenizer of a checkpoint, as mlx-lm's `load` does.

    path_or_repo: a folder, a Hub id (downloaded once), or a bundled model: embedded or teacher.
    adapter_path: a folder of adapters of mlx-lm or PEFT. lazy: leave the weights on disk until they are used. revision:
    branch, tag or commit on the Hub. Raises CheckpointError, MemoryLimitError, and ConfigError for a revision of a
    folder.
    """
    checkpoint = open_checkpoint(fetch(str(path_or_repo), revision))
    get_weights(checkpoint, lazy)
    model = for_this_device(lazy_model(checkpoint))
    if adapter_path is not None:
        model = with_adapters(model, adapter_path)
    keep_in_memory()
    if not lazy:
        read_weights(model)
    return model, load_tokenizer(checkpoint)


def get_weights(checkpoint: Checkpoint, lazy: bool = False) -> None:
    """Download the weights that are still on the Hub, after all checks.

    lazy: do not check the memory. Raises MemoryLimitError and CheckpointError.
    """
    if not lazy:
        refuse_if_too_big(checkpoint)
    if checkpoint.source.headers:
        checkpoint.check_keys()
        checkpoint.source.download()


def for_this_device(model: Any) -> Any:
    """Return the model in float32 if it is small and runs on a CPU, else as it is.

    Raises CheckpointError if MLX cannot run it here.
    """
    if mx.default_device() != mx.Device(mx.cpu):
        return model
    if get_total_parameters(model) < SMALL:
        return in_float32(model)
    if any(isinstance(layer, SwitchLinear) and layer.weight.dtype != mx.float32 for layer in model.modules()):
        raise CheckpointError(
            "On a CPU, MLX cannot multiply the experts of this model in 16 bits. Convert it with --quantize, or with "
            "--dtype float32."
        )
    return model


def read_weights(model: Any) -> None:
    """Read the weights from disk, and join projections with the same input.

    One layer is read after another, so memory never contains more than one layer twice.
    """
    for layer in model.layers:
        layer.join()
        mx.eval(layer.parameters())
    mx.eval(model.parameters())


def lazy_model(checkpoint: Checkpoint) -> Any:
    """Return the model as stored, with arrays that are read when they are used. Raises CheckpointError."""
    checkpoint.check_keys()
    checkpoint.source.download()
    try:
        own = checkpoint.added | ({} if checkpoint.quantization is None else {"quantization": checkpoint.quantization})
        with plainly_named(checkpoint.folder) as folder:
            model, _ = load_model(folder, lazy=True, model_config=own, get_model_classes=get_model_classes)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"The weights in {checkpoint.folder} cannot be loaded: {one_line(error)}") from error
    return model


@contextmanager
def plainly_named(folder: Path) -> Iterator[Path]:
    """Yield a path of a folder that mlx-lm does not read as a pattern of names, as it does with brackets."""
    if glob.escape(str(folder)) == str(folder):
        yield folder
        return
    with TemporaryDirectory() as parent:
        link = Path(parent) / "model"
        link.symlink_to(folder.absolute())
        yield link


def hollow_model(checkpoint: Checkpoint) -> Any:
    """Return the model with lazy zeros as weights. Only the headers must be downloaded. Raises CheckpointError."""
    checkpoint.check_keys()
    kind, _ = get_model_classes(checkpoint.config)
    model: Any = kind(checkpoint.args)
    tensors = checkpoint.renamed()
    if checkpoint.quantization is not None:

        def packed(path: str, layer: nn.Module) -> bool | dict[str, Any]:
            settings = checkpoint.layer_quantization(path) if f"{path}.scales" in tensors else None
            return False if settings is None else settings._asdict()

        nn.quantize(model, class_predicate=packed)
    model.load_weights([(name, mx.zeros(tensor.shape, DTYPES[tensor.dtype])) for name, tensor in tensors.items()])
    return model


def in_float32(model: nn.Module) -> nn.Module:
    """Return the model in float32, because MLX's CPU backend multiplies other dtypes tens of times slower."""
    model = dequantize_model(model)
    model.set_dtype(mx.float32)
    return model


def one_line(error: Exception) -> str:
    """Return the message of an mlx-lm error in one line."""
    return " ".join(str(error.args[0] if error.args else error).split())


def keep_in_memory() -> None:
    """Allow Metal to wire weights, as mlx-lm does. Otherwise the system pages those of a large model in and out."""
    recommended = mx.device_info().get("max_recommended_working_set_size")
    if recommended:
        mx.set_wired_limit(int(recommended))


def refuse_if_too_big(checkpoint: Checkpoint) -> None:
    """Raise MemoryLimitError if the weights alone exceed the memory limit."""
    limit = memory_limit()
    needed = checkpoint.bytes_to_load(in_float32=mx.default_device() == mx.Device(mx.cpu))
    if needed <= limit:
        return
    bits = int(limit * 8 / checkpoint.parameters)
    fitting = next((size for size in (8, 6, 5, 4, 3, 2) if size + 0.5 <= bits), None)
    advice = f"Use a version with at most {fitting} bits" if fitting else "No quantized version of it would fit"
    raise MemoryLimitError(
        f"The weights need {needed / 1e9:.1f} GB, but this machine has only {limit / 1e9:.1f} GB for them. {advice}."
    )


def memory_limit() -> int:
    """Return the most bytes for weights: the GPU's recommended working set, or else this machine's memory."""
    info = mx.device_info()
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(info.get("max_recommended_working_set_size") or physical)


def nbytes(model: Any) -> int:
    """Return the bytes of all weights of a model."""
    return sum(int(value.nbytes) for _, value in tree_flatten(model.parameters()))


def compute_dtype(model: Any) -> mx.Dtype:
    """Return the dtype of a model's activations, which is that of its norms."""
    norms = [value for name, value in tree_flatten(model.parameters()) if name.endswith("norm.weight")]
    return norms[-1].dtype
