"""Hugging Face checkpoints become MLX folders in mlx-lm's layout: key maps, precision, a streaming writer.

    from d3mlx.convert import Quantization, Recipe, convert
    convert("GSAI-ML/LLaDA-8B-Instruct", "llada-4bit", Recipe(Quantization(bits=4)))

Key maps are the `sanitize` of each model family, so a new family needs nothing here.
"""

from d3mlx.convert.converter import Summary, convert
from d3mlx.convert.recipe import Quantization, Recipe

__all__ = ["Quantization", "Recipe", "Summary", "convert"]
