"""The decoders by name. To add a decoder, write one file with its `Options` and add one line here."""

from __future__ import annotations

from typing import Any

from d3mlx.decoding.d3llm import D3LLM
from d3mlx.decoding.fast_dllm import FastDLLM
from d3mlx.decoding.fast_dllm_v2 import FastDLLMv2
from d3mlx.decoding.llada2 import LLaDA2
from d3mlx.decoding.options import Options, check_choice, options_of
from d3mlx.decoding.sdar import SDAR
from d3mlx.decoding.selective import Selective
from d3mlx.decoding.stable_diffcoder import StableDiffCoder
from d3mlx.decoding.vanilla import Vanilla
from d3mlx.errors import ConfigError
from d3mlx.models.traits import Traits

PRESETS: dict[str, type[Options]] = {
    "selective": Selective,
    "d3llm": D3LLM,
    "fast-dllm": FastDLLM,
    "vanilla": Vanilla,
    "sdar": SDAR,
    "fast-dllm-v2": FastDLLMv2,
    "llada2": LLaDA2,
    "stable-diffcoder": StableDiffCoder,
}
"""The class of each decoder."""


def presets_for(traits: Traits) -> list[str]:
    """Return the names of the decoders that can run on a family, the default first."""
    fitting = [name for name, kind in PRESETS.items() if kind.attention == traits.attention]
    return sorted(fitting, key=lambda name: name != traits.decoder)


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
