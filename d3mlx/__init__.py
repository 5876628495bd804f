"""d3mlx: diffusion language models on Apple silicon.

from d3mlx import load, generate
model, tokenizer = load("GSAI-ML/LLaDA-8B-Instruct")
print(generate(model, tokenizer, [{"role": "user", "content": "Hello!"}]).text)
"""

from d3mlx.api import Generation, Result, generate, stream_generate
from d3mlx.decoding.presets import D3LLM, FastDLLM, Vanilla, preset
from d3mlx.decoding.sampling import Sampling
from d3mlx.engine import Stats, Step
from d3mlx.loader import load

__all__ = [
    "D3LLM",
    "FastDLLM",
    "Generation",
    "Result",
    "Sampling",
    "Stats",
    "Step",
    "Vanilla",
    "generate",
    "load",
    "preset",
    "stream_generate",
]
