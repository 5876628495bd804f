"""The tokenizer of the stories: byte-level BPE with one token per digit and header, trained once and frozen.

It can encode any text, and decoding returns the same text. `d3mlx.research.builds.tokenizer` trained it.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from d3mlx.data.tokens import with_special_tokens

PATH = Path(__file__).with_name("tokenizer.json")

PIECES = r" ?[A-Za-z]+|\d|\n\n| ?[^\sA-Za-z\d]|\s"
"""Pattern of the pieces that are encoded separately: a word with the space before it, or a single digit."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer."""
    return with_special_tokens(Tokenizer.from_file(str(PATH)))
