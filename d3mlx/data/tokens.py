"""The tokenizer of the embedded model: one token per word of the problems, digit and header, bytes for the rest.

Token by token it spells any text, so decoding gives back what was encoded. The files load with
`AutoTokenizer.from_pretrained` as they are.
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
"""Tokens that the model is made for: five worked examples, a question and a canvas."""


def header(role: str) -> str:
    """A turn's opening is one token for the usual roles: the fixed text costs two tokens instead of eight."""
    return f"{HEADER}{role}{HEADER_END}\n\n"


def words() -> list[str]:
    """Every piece that the templates can produce, sorted."""
    texts = [templates.ANSWER]
    for template in templates.TEMPLATES:
        texts.append(template.question)
        texts += [text for step in template.steps for text in step.phrasings]
    plain = [" ".join(part for part, *_ in Formatter().parse(text)) for text in texts]
    filled = [*templates.NAMES, *templates.OBJECTS, *templates.CONTAINERS]
    pieces = set(re.findall(templates.PIECES, "\n".join(plain)))
    # A name or the first word of a sentence comes with a space before it or, at the very beginning, without.
    pieces |= {f" {word}" for word in (*filled, *pieces) if word.isalpha()} | set(templates.NAMES)
    return sorted(piece for piece in pieces if len(piece) > 1)


def build_tokenizer() -> PreTrainedTokenizerFast:
    spelled = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [*alphabet, *(spelled.pre_tokenize_str(word)[0][0] for word in words())]
    # Without merges, a word of the vocabulary is one token and any other is spelled byte by byte.
    model = models.BPE({piece: i for i, piece in enumerate(vocabulary)}, [], ignore_merges=True)
    tokenizer = Tokenizer(model)
    pieces = pre_tokenizers.Split(Regex(templates.PIECES), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, spelled])
    tokenizer.decoder = decoders.ByteLevel()
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
