"""The tokenizer of the built-in models: one token per word of the problems, digit and header, and bytes for other text.

It can encode any text, and decoding returns the same text. `AutoTokenizer.from_pretrained` can load its files.
"""

from __future__ import annotations

import re
from string import Formatter

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from d3mlx.data import templates
from d3mlx.models.llada import TRAITS

BOS, END, TURN, MASK = "<|startoftext|>", "<|endoftext|>", "<|eot_id|>", "<|mdm_mask|>"
HEADER, HEADER_END = "<|start_header_id|>", "<|end_header_id|>"
ROLES = ("user", "assistant")
CONTEXT = 512
"""Context length in tokens: five worked examples, a question and a canvas."""


def header(role: str) -> str:
    """Return the opening of a turn. It is one token for each role in ROLES, instead of four."""
    return f"{HEADER}{role}{HEADER_END}\n\n"


def words() -> list[str]:
    """Return all pieces with several characters that the templates can produce, sorted."""
    texts = [templates.ANSWER]
    for template in templates.TEMPLATES:
        texts.append(template.question)
        texts += [text for step in template.steps for text in step.phrasings]
    plain = [" ".join(part for part, *_ in Formatter().parse(text)) for text in texts]
    filled = [*templates.NAMES, *templates.OBJECTS, *templates.CONTAINERS]
    pieces = set(re.findall(templates.PIECES, "\n".join(plain)))
    # Names and first words of sentences have a space before them, except at the beginning of a text.
    pieces |= {f" {word}" for word in (*filled, *pieces) if word.isalpha()} | set(templates.NAMES)
    return sorted(piece for piece in pieces if len(piece) > 1)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer."""
    spelled = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [*alphabet, *(spelled.pre_tokenize_str(word)[0][0] for word in words())]
    # Without merges, a word of the vocabulary is one token, and other words are encoded as bytes.
    model = models.BPE({piece: i for i, piece in enumerate(vocabulary)}, [], ignore_merges=True)
    tokenizer = Tokenizer(model)
    pieces = pre_tokenizers.Split(Regex(templates.PIECES), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, spelled])
    tokenizer.decoder = decoders.ByteLevel()
    return with_special_tokens(tokenizer)


def with_special_tokens(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Return a tokenizer for `transformers` with the special tokens and the chat template."""
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
