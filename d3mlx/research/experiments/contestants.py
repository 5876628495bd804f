"""The models and decoders of the report. All choices that could favor one of them were made before the measurement.

Thresholds were chosen on validation problems, before the bundled student and the control existed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from d3mlx.decoding.d3llm import D3LLM
from d3mlx.decoding.decoder import Preset
from d3mlx.decoding.fast_dllm import FastDLLM
from d3mlx.decoding.selective import Selective
from d3mlx.decoding.vanilla import Vanilla
from d3mlx.errors import ConfigError
from d3mlx.evaluate.records import Setting

FIRST, COUNT = 100_000, 1000
"""Held-out problems of the report only."""

Y_MAX = 100.0
"""Reference accuracy of AUP in percent: no errors. It does not depend on any model."""

FAST_THRESHOLDS = (0.98, 0.95, 0.9, 0.8, 0.6)
"""Confidences around the published 0.9, from little parallelism to a large loss of accuracy."""

ENTROPIES = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Entropies in nats, from a fifth of the published 0.5 up to it. Above 0.5 the teacher loses too much for AUP."""

Name = Literal["teacher", "student", "control", "autoregressive"]


@dataclass(frozen=True)
class Contestant:
    """A model under a decoder: a curve of the plot. A preset of None means mlx-lm's own decoding."""

    model: Name
    decoder: str
    presets: Mapping[Setting, Preset | None]

    @property
    def name(self) -> str:
        return f"{self.model}, {self.decoder}"

    @property
    def folder(self) -> str:
        return self.name.replace(", ", "-").replace(" ", "-")

    @property
    def settings(self) -> dict[str, str]:
        """Return the decoder of each point, with its defaults."""
        return {
            setting.name: "mlx-lm" if preset is None else repr(preset.build("llada"))
            for setting, preset in self.presets.items()
        }


def fast(model: Name) -> Contestant:
    return Contestant(model, "fast-dllm", {Setting("threshold", t): FastDLLM(threshold=t) for t in FAST_THRESHOLDS})


def d3llm(model: Name) -> Contestant:
    return Contestant(model, "d3llm", {Setting("threshold", t): D3LLM(threshold=t) for t in ENTROPIES})


def selective(model: Name) -> Contestant:
    return Contestant(model, "selective", {Setting("threshold", t): Selective(t) for t in ENTROPIES})


ONE_PER_STEP = Contestant("teacher", "one per step, blocks of 32", {Setting(): Vanilla()})
"""The reference for differences of accuracy, and the first point of the second AUP."""

SMALL_BLOCKS = Contestant("teacher", "one per step, blocks of 8", {Setting(): Vanilla(block_size=8)})
"""The teacher's most accurate decoder."""

AUTOREGRESSIVE = Contestant("autoregressive", "mlx-lm", {Setting(): None})

CONTESTANTS = (
    ONE_PER_STEP,
    SMALL_BLOCKS,
    fast("teacher"),
    d3llm("teacher"),
    selective("teacher"),
    fast("student"),
    d3llm("student"),
    selective("student"),
    d3llm("control"),
    selective("control"),
    AUTOREGRESSIVE,
)


@dataclass(frozen=True)
class Models:
    """Folders of the models. A model without a folder keeps its committed results."""

    teacher: Path
    student: Path
    control: Path | None = None
    autoregressive: Path | None = None

    def folder(self, name: Name) -> Path | None:
        path: Path | None = getattr(self, name)
        return path

    def check(self) -> None:
        """Raise ConfigError if a folder does not contain a model."""
        for name, folder in vars(self).items():
            if folder is not None and not (folder / "config.json").is_file():
                raise ConfigError(f"{folder} does not contain a model. Build the model, or set --{name} to its folder.")
