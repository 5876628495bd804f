"""The decoders by name. To add a decoder, write one file with its `Options` and add one line here."""

from __future__ import annotations

from typing import Any

from d3mlx.decoding.d3llm import D3LLM
from d3mlx.decoding.fast_dllm import FastDLLM
from d3mlx.decoding.options import Options, check_choice, options_of
from d3mlx.decoding.selective import Selective
from d3mlx.decoding.vanilla import Vanilla
from d3mlx.errors import ConfigError

DEFAULT = "selective"

PRESETS: dict[str, type[Options]] = {
    "selective": Selective,
    "d3llm": D3LLM,
    "fast-dllm": FastDLLM,
    "vanilla": Vanilla,
}
"""The class of each decoder."""


def preset(name: str, **options: Any) -> Options:
    """Return the decoder `name` with the given options; None stands for the default of the model's family.

    Raises ConfigError for an unknown name, an unknown option or a value that is not allowed.
    """
    check_choice("decoder", name, tuple(PRESETS))
    known = options_of(PRESETS[name])
    if unknown := [option for option in options if option not in known]:
        wrong, valid = (", ".join(sorted(names)).replace("_", "-") for names in (unknown, known))
        raise ConfigError(f"Decoder {name} does not take {wrong}. Its options are {valid}.")
    return PRESETS[name](**options)
