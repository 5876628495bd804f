"""d3mlx: diffusion language models on Apple silicon.

from d3mlx import load, generate
model, tokenizer = load("GSAI-ML/LLaDA-8B-Instruct")
print(generate(model, tokenizer, [{"role": "user", "content": "Hello!"}]).text)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from d3mlx.open_files import import_mlx_lm

if TYPE_CHECKING:
    from d3mlx.api import Result, batch_generate, generate, stream_generate
    from d3mlx.chat import Chat
    from d3mlx.checkpoints.loader import load
    from d3mlx.decoding.d3llm import D3LLM
    from d3mlx.decoding.fast_dllm import FastDLLM
    from d3mlx.decoding.fast_dllm_v2 import FastDLLMv2
    from d3mlx.decoding.llada2 import LLaDA2
    from d3mlx.decoding.presets import preset
    from d3mlx.decoding.sampling import Sampling
    from d3mlx.decoding.sdar import SDAR
    from d3mlx.decoding.selective import Selective
    from d3mlx.decoding.stable_diffcoder import StableDiffCoder
    from d3mlx.decoding.vanilla import Vanilla
    from d3mlx.document import Document
    from d3mlx.generation import Generation
    from d3mlx.request import Stats, Step

__all__ = [
    "D3LLM",
    "SDAR",
    "Chat",
    "Document",
    "FastDLLM",
    "FastDLLMv2",
    "Generation",
    "LLaDA2",
    "Result",
    "Sampling",
    "Selective",
    "StableDiffCoder",
    "Stats",
    "Step",
    "Vanilla",
    "batch_generate",
    "generate",
    "load",
    "preset",
    "stream_generate",
]

HOMES = {
    "api": ("Result", "batch_generate", "generate", "stream_generate"),
    "decoding.d3llm": ("D3LLM",),
    "decoding.fast_dllm": ("FastDLLM",),
    "decoding.fast_dllm_v2": ("FastDLLMv2",),
    "decoding.llada2": ("LLaDA2",),
    "decoding.presets": ("preset",),
    "decoding.sampling": ("Sampling",),
    "decoding.sdar": ("SDAR",),
    "decoding.selective": ("Selective",),
    "decoding.stable_diffcoder": ("StableDiffCoder",),
    "decoding.vanilla": ("Vanilla",),
    "chat": ("Chat",),
    "checkpoints.loader": ("load",),
    "document": ("Document",),
    "generation": ("Generation",),
    "request": ("Stats", "Step"),
}

import_mlx_lm()


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def __getattr__(name: str) -> Any:
    """Import a public name at its first use. mlx-lm takes a second to import, and `d3mlx --help` does not need it."""
    for module, names in HOMES.items():
        if name in names:
            return getattr(import_module(f"d3mlx.{module}"), name)
    if name == "__version__":
        return import_module("d3mlx.version").VERSION
    raise AttributeError(f"module 'd3mlx' has no attribute {name!r}")
