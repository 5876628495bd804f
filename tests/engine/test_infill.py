"""Texts with holes: their marks, their growth, and equal results alone and in a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3mlx import D3LLM, SDAR, FastDLLM, Generation, Sampling, Selective, Vanilla, batch_generate, generate, load
from d3mlx.document import FIRST_SIZE, MARK, Blank, Document
from d3mlx.errors import PromptError
from d3mlx.generation import Fill
from tests.builders import write_dream, write_llada
from tests.fakes import END, MASK, VOCAB, TableModel
from tests.replicas import sdar_chat

PIECES = st.sampled_from(["a", " ", "\\", "\\\\", "\n", "[", "]", "[MASK]", "[MASK:3]", "[MASK:x]"])
TEXT = st.lists(PIECES, max_size=8).map("".join)


def literal(text: str) -> str:
    """Return a text as a document writes it, so that its marks are not holes."""
    return MARK.sub(lambda match: match[1] * 2 + "\\" + match[0][len(match[1]) :], text)


@given(texts=st.lists(TEXT, min_size=2, max_size=4), sizes=st.lists(st.none() | st.integers(1, 99), min_size=3))
def test_marks_are_holes_and_escaped_marks_are_text(texts: list[str], sizes: list[int | None]) -> None:
    texts = [texts[0], *(text or "." for text in texts[1:])]
    written, parts = "", list[Any]()
    for text, size in zip(texts, sizes, strict=False):
        before = literal(text)
        slashes = len(before) - len(before.rstrip("\\"))
        written += before + "\\" * slashes + ("[MASK]" if size is None else f"[MASK:{size}]")
        parts += [text, Blank(size)]
    parsed = Document.parse(written + "!")
    assert [part for part in parsed.parts if part != ""] == [part for part in (*parts, "!") if part != ""]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no hole", r"no hole. Write \[MASK\]"),
        ("a \\[MASK]", "no hole"),
        ("a [MASK:0] b", "from 1 to 1,048,576 tokens, not 0"),
        ("a [MASK:-1] b", r"\[MASK:-1\] is not a hole"),
        ("a [MASK:two] b", r"\[MASK:two\] is not a hole"),
        ("a [MASK:] b", r"\[MASK:\] is not a hole"),
        ("a [MASK][MASK:2] b", "Two holes are next to each other"),
        ("", "no hole"),
    ],
)
def test_wrong_marks_are_refused(text: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        Document.parse(text)


def table_model(ends: list[int], context: int = 4096) -> TableModel:
    """Return a model that predicts token 3 everywhere, and the end token at the positions `ends`."""
    table = np.zeros((256, VOCAB))
    table[:, 3] = 9.0
    table[ends, 3], table[ends, END] = 0.0, 9.0
    model = TableModel(table)
    model.args.max_new_tokens, model.args.context = 64, context
    return model


def fill_of(model: TableModel, *parts: Any, **options: Any) -> Generation:
    generation = Generation(model, None, Document(parts), FastDLLM(cache="none").build("llada"), **options)  # type: ignore[arg-type]
    steps = list(generation)
    assert [step.index for step in steps] == list(range(len(steps)))
    assert [step.round for step in steps] == sorted(step.round for step in steps)
    assert generation.stats.forwards == len(steps)
    assert generation.stats.rows == sum(step.rows for step in steps)
    assert generation.stats.tokens == len(generation.canvas.answer)
    return generation


@pytest.mark.parametrize(
    ("ends", "context", "sizes", "fill"),
    [
        ([2 + 5], 4096, [16], Fill("", [3] * 5 + [END], "stop")),
        ([2 + 15], 4096, [16], Fill("", [3] * 15 + [END], "stop")),
        ([2 + 20], 4096, [16, 32], Fill("", [3] * 20 + [END], "stop")),
        ([], 4096, [16, 32, 50], Fill("", [3] * 50, "length")),
        ([2 + 20], 30, [16, 27], Fill("", [3] * 20 + [END], "stop")),
        ([2 + 40], 30, [16, 27], Fill("", [3] * 27, "length")),
    ],
)
def test_a_hole_doubles_until_its_text_ends(ends: list[int], context: int, sizes: list[int], fill: Fill) -> None:
    """Two tokens are before the hole and one after it. At most 50 tokens are allowed."""
    generation = fill_of(table_model(ends, context), [1, 2], Blank(), [4], max_tokens=50)
    assert generation.sizes == [(size,) for size in sizes]
    assert generation.fills == [fill]
    assert generation.canvas.tokens[[0, 1, -1]].tolist() == [1, 2, 4]


def test_only_holes_without_an_end_grow() -> None:
    """The holes are at 1 to 16, at 18 to 20 and at 22 to 37. The first one ends, and the second has a fixed size."""
    generation = fill_of(table_model([5]), [1], Blank(), [1], Blank(3), [1], Blank(), [1], max_tokens=32)
    assert generation.sizes == [(16, 3, 16), (16, 3, 32)]
    assert [(len(fill.tokens), fill.finish_reason) for fill in generation.fills] == [
        (5, "stop"),
        (3, "length"),
        (32, "length"),
    ]


def test_a_hole_at_the_end_has_its_largest_size_from_the_start() -> None:
    assert fill_of(table_model([30]), [1], Blank(2), [1], Blank(), max_tokens=40).sizes == [(2, 40)]


def test_masks_in_token_ids_are_holes() -> None:
    generation = fill_of(table_model([]), *Document.of_ids([MASK, 1, MASK, MASK, 2], MASK).parts)
    assert generation.canvas.tokens.tolist() == [3, 1, 3, 3, 2]
    assert [fill.tokens for fill in generation.fills] == [[3], [3, 3]]


@pytest.fixture(scope="module", params=["llada", "dream"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    write = write_llada if request.param == "llada" else write_dream
    return load(write(tmp_path_factory.mktemp(request.param)))


CHAT = [{"role": "user", "content": "Why?"}]
DOCUMENTS = [
    Document.parse("x = [MASK:5]\n"),
    Document.parse("[MASK:3] and [MASK] or [MASK:9].", CHAT),
    Document.between("def f(a):\n  ", "\n  return b"),
    Document.between(CHAT, "So it is."),
    Document((list(b"ab"), Blank(4), "c", Blank(2))),
]
DECODERS: list[Any] = [
    Vanilla(steps=8),
    FastDLLM(cache="none", threshold=0.3),
    FastDLLM(cache="prefix", block_size=8),
    FastDLLM(block_size=8),
    D3LLM(threshold=2.0, block_size=8),
    Selective(threshold=2.0, block_size=8, rows=16),
]


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda preset: str(preset)[:50])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_document_in_a_batch_is_filled_as_alone(loaded: Any, decoder: Any, temperature: float) -> None:
    results = batch_generate(
        *loaded, DOCUMENTS, decoder, max_tokens=40, sampling=Sampling(temperature, seed=3), max_batch=3
    )
    for index, (document, result) in enumerate(zip(DOCUMENTS, results, strict=True)):
        alone = generate(*loaded, document, decoder, max_tokens=40, sampling=Sampling(temperature, seed=3 + index))
        assert (result.text, result.tokens, result.stats, result.fills) == (
            alone.text,
            alone.tokens,
            alone.stats,
            alone.fills,
        )
        assert "".join(step.text for step in result.steps) == result.text
        assert len(result.fills) == sum(isinstance(part, Blank) for part in document.parts)


def test_the_text_around_the_holes_stays_as_it_is(loaded: Any) -> None:
    text = "\ufeffé \\n\r\n<|endoftext|> 🦙 [MASK:4]  end \\[MASK]\r\n\n"
    result = generate(*loaded, Document.parse(text), max_tokens=16)
    before, after = "\ufeffé \\n\r\n<|endoftext|> 🦙 ", "  end [MASK]\r\n\n"
    assert result.text == before + result.fills[0].text + after


def test_a_space_before_a_hole_belongs_to_the_hole(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In most vocabularies the space and the word after it are one token."""
    model, tokenizer = loaded
    generation = Generation(model, tokenizer, Document.parse("the [MASK:3] end"))
    assert tokenizer.decode(generation.canvas.tokens[: generation.canvas.prompt_length].tolist()) == "the"
    for spelled, text in ((" of", "the of end"), ("/of", "the /of end"), ("  o", "the  o end")):
        ids = np.array(tokenizer.encode(spelled, add_special_tokens=False), np.int32)
        generation = Generation(model, tokenizer, Document.parse("the [MASK:3] end"))
        generation.canvas.commit(np.arange(3, 6, dtype=np.int32), ids)
        generation.streams[0].push(generation.canvas, generation.canvas.holes[0])
        assert generation.readable() == text


def test_the_text_of_an_earlier_round_is_never_streamed(loaded: Any) -> None:
    """The texts of the steps together are the result, although earlier rounds had other texts."""
    generation = Generation(*loaded, Document.between("a", "b"), max_tokens=64, sampling=Sampling(1.0, seed=1))
    steps = list(generation)
    assert len(generation.sizes) > 1
    assert "".join(step.text for step in steps) == generation.text == generation.fills[0].text
    assert not any(step.text for step in steps if step.round < steps[-1].round)


def test_a_stop_text_ends_a_hole(loaded: Any) -> None:
    free = generate(*loaded, "a", "fast-dllm", suffix="b", max_tokens=FIRST_SIZE)
    stop = free.text[3:5]
    result = generate(*loaded, "a", "fast-dllm", suffix="b", max_tokens=64, stop=[stop])
    assert (result.text, result.fills[0].finish_reason) == (free.text[: free.text.find(stop)], "stop")


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        (Document.parse("a [MASK] b"), {"suffix": "c"}, "already has its text after the holes"),
        (Document.parse("a [MASK:600] b"), {}, "exceed this model's context of 512"),
        (Document.parse("a " * 300 + "[MASK]b"), {}, "exceed this model's context of 512"),
        (Document(([1, -1], Blank(), [2])), {}, "token id -1"),
        (Document.parse("a\ud800 [MASK]"), {}, "not UTF-8"),
    ],
)
def test_documents_that_cannot_be_filled(loaded: Any, prompt: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        generate(*loaded, prompt, **options)


class WithFIM:
    """A tokenizer whose vocabulary also has Qwen's FIM tokens, here the ids of three bytes."""

    NAMES = {"<|fim_prefix|>": 1, "<|fim_suffix|>": 2, "<|fim_middle|>": 3, "<|fim_pad|>": 4}  # noqa: RUF012

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def get_vocab(self) -> dict[str, int]:
        return {**self.tokenizer.get_vocab(), **self.NAMES}


def test_a_block_causal_model_fills_a_hole_with_fim_tokens(tmp_path: Path) -> None:
    model, tokenizer = load(sdar_chat(tmp_path))
    document = Document.parse("ab [MASK:6] yz\n")
    generation = Generation(model, WithFIM(tokenizer), document)
    steps = list(generation)
    order = [1, *tokenizer.encode("ab"), 2, *tokenizer.encode(" yz"), 3]
    assert generation.canvas.tokens[: len(order)].tolist() == order
    assert generation.canvas.prompt_length == len(order)
    assert 4 in generation.canvas.end_ids
    assert generation.text == f"ab {generation.fills[0].text} yz\n" == "".join(step.text for step in steps)
    assert len(generation.fills[0].tokens) <= 6
    with pytest.raises(PromptError, match=r"no FIM tokens such as <\|fim_prefix\|>. Use a LLaDA or Dream model"):
        Generation(model, tokenizer, document)
    for other in (Document.parse("a [MASK] b [MASK] c"), Document.between(CHAT, "b")):
        with pytest.raises(PromptError, match="fills one hole of a text"):
            Generation(model, WithFIM(tokenizer), other)
    # A hole at the end needs no FIM tokens.
    assert generate(model, tokenizer, Document.parse("ab[MASK:3]"), SDAR()).text.startswith("ab")
