"""Tokenizers of LLaDA and Dream folders, loaded without running code of the folder.

LLaDA has a plain fast tokenizer, but config.json's `auto_map` makes the usual loaders ask whether to trust remote code.
Dream's `DreamTokenizer` is Qwen2's byte-level BPE with another name. This module names the classes, so no question is
asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from d3mlx.checkpoints.checkpoint import MOST_TOKENS, Checkpoint
from d3mlx.checkpoints.config import as_list, check_end_ids, read_json, refuse_pointer
from d3mlx.errors import CheckpointError, first_line
from d3mlx.models import traits_of
from d3mlx.panics import panics_as

FILES = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)
"""Files of a tokenizer."""

AGAIN = "Download its files again."


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """Return mlx-lm's TokenizerWrapper around the folder's tokenizer. Raises CheckpointError."""
    cannot = f"The tokenizer in {checkpoint.folder} cannot be loaded"
    try:
        with panics_as(CheckpointError, cannot, AGAIN):
            return wrapped(checkpoint)
    except (CheckpointError, OSError, MemoryError):
        raise
    except Exception as error:
        # transformers checks few fields, so a wrong type raises any error.
        raise CheckpointError(f"{cannot}: {first_line(error)}. {AGAIN}") from error


def wrapped(checkpoint: Checkpoint) -> Any:
    """Return the tokenizer of a folder with its template, its special tokens and the ids that end an answer."""
    # Imported here because transformers takes seconds to import, and prompts of token ids need no tokenizer.
    from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, NaiveStreamingDetokenizer, TokenizerWrapper
    from tokenizers import decoders

    inner = plain_tokenizer(checkpoint)
    traits = traits_of(checkpoint.family)
    turn_end = traits.turn_end
    known = inner.get_vocab()
    if known and (highest := max(known.values())) >= MOST_TOKENS:
        raise CheckpointError(
            f"The tokenizer in {checkpoint.folder} has token {highest}. The limit is {MOST_TOKENS - 1:,}. {AGAIN}"
        )
    if inner.chat_template is None and turn_end in known:
        inner.chat_template = traits.template
    # Published folders list only a few of their special tokens. The other special tokens are not text either.
    special = [token.content for token in inner.added_tokens_decoder.values() if token.special]
    inner.add_special_tokens({"extra_special_tokens": special})
    in_bytes = isinstance(inner.backend_tokenizer.decoder, decoders.ByteLevel)
    stream = BPEStreamingDetokenizer if in_bytes else NaiveStreamingDetokenizer
    # Padding comes after the end of an answer, and some models (DiffuCoder) end an answer only with padding.
    special_ids, mask_id = set(inner.all_special_ids), checkpoint.args.mask_token_id
    pads = [token for token in (inner.pad_token_id, checkpoint.args.pad_token_id) if token in special_ids - {mask_id}]
    return TokenizerWrapper(inner, stream, eos_token_ids=configured_end_ids(checkpoint, known.get(turn_end), *pads))


def plain_tokenizer(checkpoint: Checkpoint) -> Any:
    from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

    folder = checkpoint.folder
    names = {path.name for path in folder.iterdir() if path.is_file()}
    if "tokenizer.json" in names:
        kind: Any = PreTrainedTokenizerFast
    elif {"vocab.json", "merges.txt"} <= names:
        kind = Qwen2Tokenizer
    else:
        raise CheckpointError(f"{folder} contains no tokenizer: neither tokenizer.json nor vocab.json and merges.txt.")
    try:
        inner = kind.from_pretrained(str(folder))
    except Exception:
        # The tokenizers library raises bare Exception for a damaged file, often without its name.
        for name in sorted(names & {*FILES}):
            refuse_pointer(folder / name, (folder / name).read_bytes())
            if name.endswith(".json"):
                read_json(folder / name)
        raise
    if kind is Qwen2Tokenizer:
        check_pieces(folder, inner)
    return inner


def check_pieces(folder: Path, inner: Any) -> None:
    """Raise CheckpointError if vocab.json lacks a byte, or if merges.txt is empty although there are longer pieces.

    The library accepts such files, but the model then gets tokens that it was not trained on.
    """
    from tokenizers import pre_tokenizers

    pieces = inner.backend_tokenizer.get_vocab(with_added_tokens=False)
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    joined = any(" " in line for line in lines if not line.startswith("#version"))
    for name, whole in (
        ("vocab.json", pieces.keys() >= {*pre_tokenizers.ByteLevel.alphabet()}),
        ("merges.txt", joined or max(map(len, pieces), default=1) == 1),
    ):
        if not whole:
            raise CheckpointError(f"{folder / name} is truncated or damaged. Download it again.")


def configured_end_ids(checkpoint: Checkpoint, *others: int | None) -> list[int]:
    """Return the ids that end an answer: of config.json, then of generation_config.json, then `others`.

    A loaded tokenizer has the same ids without order; `d3mlx.ends.end_ids` puts those of config.json first again.
    """
    entries = [checkpoint.config["eos_token_id"]]
    path = checkpoint.folder / "generation_config.json"
    if path.is_file():
        given = [token for token in as_list(read_json(path).get("eos_token_id")) if token is not None]
        if any(isinstance(token, bool) or not isinstance(token, int) for token in given):
            raise CheckpointError(f"{path}: eos_token_id must be a whole number or a list of them, not {given!r}.")
        check_end_ids(path, given, checkpoint.args)
        entries += given
    flat = [token for entry in entries for token in as_list(entry)]
    return list(dict.fromkeys([*flat, *(token for token in others if token is not None)]))
