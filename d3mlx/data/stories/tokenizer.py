"""The tokenizer of the bundled models: byte-level BPE with one token per digit and header, trained once and frozen.

It can encode any text, and decoding returns the same text. `AutoTokenizer.from_pretrained` can load its files.
`d3mlx.research.builds.tokenizer` trained it.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from d3mlx.models.llada import TRAITS

PATH = Path(__file__).with_name("tokenizer.json")

PIECES = r" ?[A-Za-z]+|\d|\n\n| ?[^\sA-Za-z\d]|\s"
"""Pattern of the pieces that are encoded separately: a word with the space before it, or a single digit."""

BOS, END, TURN, MASK = "<|startoftext|>", "<|endoftext|>", "<|eot_id|>", "<|mdm_mask|>"
HEADER, HEADER_END = "<|start_header_id|>", "<|end_header_id|>"
ROLES = ("user", "assistant")
CONTEXT = 640
"""Context length in tokens: earlier turns or worked examples, a question and a canvas, or two of them."""


def header(role: str) -> str:
    """Return the opening of a turn. It is one token for each role in ROLES, instead of four."""
    return f"{HEADER}{role}{HEADER_END}\n\n"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer for `transformers`, with the special tokens and the chat template."""
    tokenizer = Tokenizer.from_file(str(PATH))
    special = [BOS, END, TURN, MASK, HEADER, HEADER_END, *(header(role) for role in ROLES)]
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=END,
        pad_token=END,
        mask_token=MASK,
        chat_template=TRAITS.template,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )
