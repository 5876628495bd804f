"""Checks of this installation and machine, for `d3mlx doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import mlx.core as mx

from d3mlx import generate, load
from d3mlx.bench.machine import device_name, this_machine
from d3mlx.checkpoints.loader import memory_limit
from d3mlx.decoding.presets import PRESETS, preset
from d3mlx.decoding.sampling import Sampling
from d3mlx.kernels import dispatch, guard
from d3mlx.models import families_with
from d3mlx.warmup import Miniature, check_kernels

State = Literal["ok", "note", "wrong"]
HUB_SECONDS = 5.0
"""Time that the Hub has to answer."""

QUESTION, ANSWER = "Anna has 3 bags with 12 apples in each. How many apples are there?", 36

SAMPLINGS = (Sampling(), Sampling(temperature=0.5), Sampling(temperature=0.5, top_p=0.9))
"""One sampling for each way in which the kernels choose a token."""


@dataclass(frozen=True)
class Check:
    """A result. state: ok, note (works, but slower or with less) or wrong. text: one or more sentences."""

    name: str
    state: State
    text: str


def run_check(name: str) -> Check:
    """Return the result of one of `CHECKS`. An unexpected error is a result too."""
    try:
        state, text = CHECKS[name]()
    except Exception as error:
        state, text = "wrong", f"{type(error).__name__}: {' '.join(str(error).split())}"
    return Check(name, state, text)


Result = tuple[State, str]


def software() -> Result:
    """Return the versions of Python and the packages."""
    machine = this_machine()
    packages = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    source = f", commit {machine.commit}" if machine.commit else ""
    text = f"{packages}, Python {machine.python}, {machine.system}{source}."
    if sys.platform == "darwin" and platform.machine() != "arm64":
        return "wrong", f"{text} This Python is not for Apple silicon. Install an arm64 Python."
    return "ok", text


def device() -> Result:
    """Return the device that MLX computes on."""
    details = ", ".join(f"{name} {value}" for name, value in sorted(mx.device_info().items()))
    text = f"{device_name()}. {details}."
    if sys.platform == "darwin" and not dispatch.on_gpu():
        return "wrong", f"{text} MLX does not use the GPU."
    return "ok", text


def memory() -> Result:
    """Return the memory that weights may take."""
    return "ok", f"Weights may take {memory_limit() / 1e9:.1f} GB."


def kernels() -> Result:
    """Compile and run every variant of every kernel, and compare it with its reference."""
    if not guard.switched_on():
        return "note", f"{guard.SWITCH} is off, so references run instead of the kernels."
    if not dispatch.on_gpu():
        return "ok", "There is no Metal GPU, so references run instead of the kernels."
    model, _ = load()
    with warnings.catch_warnings(action="ignore"):
        for dtype in (mx.float32, mx.float16, mx.bfloat16):
            for name, kind in PRESETS.items():
                family = families_with(kind.attention)[0].name
                decoder = preset(name, block_size=8).build(family)
                for sampling in SAMPLINGS:
                    check_kernels(Miniature(model, dtype), decoder, sampling)
    counts = Counter(str(variant[0]) for variant in guard.verified)
    text = "Correct variants: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) + "."
    failed = [f"{name} does not work, so its slower reference runs. {why}" for name, why in guard.failures.items()]
    return ("wrong", " ".join([*failed, text])) if failed else ("ok", text)


def blas() -> Result:
    """Measure a matrix product, and name the library on Linux, where MLX's own one is slow."""
    a = mx.random.normal((1024, 1024))
    mx.eval(a @ a)
    began = time.perf_counter()
    mx.eval(a @ a)
    speed = 2 * 1024**3 / (time.perf_counter() - began) / 1e9
    text = f"A float32 product of 1024 x 1024 matrices reaches {speed:.0f} GFLOP/s."
    if sys.platform != "linux" or mx.default_device().type != mx.cpu:
        return "ok", text
    # NumPy has an OpenBLAS of its own, which MLX does not use.
    libraries = [line for line in Path("/proc/self/maps").read_text().splitlines() if "numpy" not in line]
    if any("openblas" in line or "libmkl" in line for line in libraries):
        return "ok", f"{text} MLX uses an optimized library."
    return "note", (
        f"{text} MLX's own library on Linux is much slower than OpenBLAS. Install libopenblas0-pthread and "
        "preload it: export LD_PRELOAD=$(ls /usr/lib/*/openblas-pthread/libopenblas.so.0)"
    )


def answer() -> Result:
    """Solve a problem with the bundled model."""
    model, tokenizer = load()
    text = generate(model, tokenizer, [{"role": "user", "content": QUESTION}]).text
    shown = f"The bundled model answers {QUESTION!r} with {text!r}"
    return ("ok", f"{shown}.") if text.endswith(f"{ANSWER}.") else ("wrong", f"{shown}, but {ANSWER} is correct.")


def downloads() -> Result:
    """Return the folder of downloads with its free space."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = f"{folder}, {shutil.disk_usage(existing).free / 1e9:.1f} GB free"
    if existing.is_dir() and os.access(existing, os.W_OK):
        return "ok", f"{free}."
    return "wrong", f"{free}, not writable."


def hub() -> Result:
    """Ask the Hub for an answer."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return "note", "HF_HUB_OFFLINE is set, so nothing is downloaded."
    try:
        status = get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS).status_code
    except Exception as error:
        return "wrong", (
            f"{constants.ENDPOINT} does not answer within {HUB_SECONDS:g} s ({type(error).__name__}). Check the "
            "network. Local models work without it."
        )
    return "ok" if status < 500 else "wrong", f"{constants.ENDPOINT} answers with status {status}."


CHECKS: dict[str, Callable[[], Result]] = {
    "Software": software,
    "Device": device,
    "Memory": memory,
    "Kernels": kernels,
    "Matrix products": blas,
    "Answer": answer,
    "Downloads": downloads,
    "Hub": hub,
}
