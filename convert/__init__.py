"""Conversion of Hugging Face checkpoints to MLX folders in mlx-lm's layout.

    from d3mlx.convert import Quantization, Recipe, convert
    convert("GSAI-ML/LLaDA-8B-Instruct", "llada-4bit", Recipe(Quantization(bits=4)))

The `sanitize` method of each model family maps the keys, so a new family needs no code here.
"""

from d3mlx.convert.converter import Summary, convert
from d3mlx.convert.recipe import Quantization, Recipe

__all__ = ["Quantization", "Recipe", "Summary", "convert"]
