"""The pieces of an answer's text, joined, are the text that the tokenizer decodes, for any order of commits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from d3mlx import load
from d3mlx.canvas import Canvas
from d3mlx.text import TextStream
from tests.builders import write_dream, write_llada

GAP = 3
"""Number of unused ids between the tokens of the published files and added tokens."""

WORDS = ("né", " plus", "\n", "🦙🦙", "�")


@pytest.fixture(scope="module", params=["llada", "dream"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a tokenizer with added tokens that are text, and with gaps between its ids."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "dream":
        extended = load(write_dream(folder, merges=("Ġ i", "h e", "Ã ©")))[1]
        extended.add_tokens([AddedToken(word, normalized=False) for word in WORDS])
        return extended
    write_llada(folder)
    inner = Tokenizer.from_file(str(folder / "tokenizer.json"))
    inner.add_tokens([AddedToken(word, normalized=False) for word in WORDS])
    inner.save(str(folder / "tokenizer.json"))
    return load(folder)[1]


def streamed(tokenizer: Any, ids: list[int], order: list[int], stop: tuple[str, ...] = ()) -> tuple[str, TextStream]:
    """Return the text of a canvas that commits `ids` one at a time in this order, and the stream."""
    canvas = Canvas.for_prompt([1, 2], len(ids), mask_id=10**6, end_ids=())
    stream, pieces = TextStream(tokenizer, stop), []
    for index in order:
        canvas.commit(np.array([2 + index]), np.array([ids[index]]))
        pieces.append(stream.push(canvas, canvas.holes[0]))
    return "".join(pieces), stream


def expected(tokenizer: Any, ids: list[int]) -> str:
    known = [token for token in ids if token in set(tokenizer.get_vocab().values())]
    return str(tokenizer.decode(known, skip_special_tokens=True, clean_up_tokenization_spaces=False))


@settings(max_examples=200)
@given(data=st.data())
def test_the_pieces_are_the_text_that_the_tokenizer_decodes(tokenizer: Any, data: st.DataObject) -> None:
    size = len(tokenizer.get_vocab())
    bytes_of = tokenizer.encode("🦙 né\u0301 ¿!\n  x", add_special_tokens=False)
    token = st.one_of(st.integers(0, size + GAP), st.sampled_from(bytes_of))
    ids = data.draw(st.one_of(st.lists(token, min_size=1, max_size=24), st.just(bytes_of)))
    order = data.draw(st.permutations(range(len(ids))))
    text, stream = streamed(tokenizer, ids, order)
    assert text == expected(tokenizer, ids)
    assert not stream.done


@pytest.mark.parametrize("text", [" indented", "  two", "\n    return 1", "é", "a , b !", "🦙", " 你好"])
def test_encoded_text_is_decoded_unchanged(tokenizer: Any, text: str) -> None:
    """Leading spaces are kept, because a HumanEval answer begins with them."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert streamed(tokenizer, ids, list(range(len(ids))))[0] == text


@settings(max_examples=100)
@given(data=st.data())
def test_a_stop_text_and_later_text_are_not_returned(tokenizer: Any, data: st.DataObject) -> None:
    """The stop text may also contain a special token, which is not part of the text."""
    special = tokenizer.convert_ids_to_tokens(sorted(tokenizer.all_special_ids)[:2])
    parts = data.draw(st.lists(st.sampled_from(["ab", "b", "é", " a", *special]), min_size=1, max_size=8))
    stop = data.draw(st.sampled_from(["ab", "ba", special[0], f"b{special[1]}", "é a", "zz"]))
    ids = [token for part in parts for token in tokenizer.encode(part, add_special_tokens=False)]
    text, stream = streamed(tokenizer, ids, data.draw(st.permutations(range(len(ids)))), (stop,))
    raw, plain = "".join(parts), "".join(part for part in parts if part not in special)
    cut = raw.find(stop) if any(part in stop for part in special) else plain.find(stop)
    assert stream.done == (cut >= 0)
    if cut < 0:
        assert text == plain
    elif any(part in stop for part in special):
        assert text == raw[:cut].replace(special[0], "").replace(special[1], "")
    else:
        assert text == plain[:cut]
