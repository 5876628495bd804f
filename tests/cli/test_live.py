"""The live view on recorded consoles: it never breaks the layout, whatever commits in whatever order."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from d3mlx.canvas import Canvas
from d3mlx.cli.render.live import LiveView, View, entropy_color, printable
from d3mlx.decoding.schedule import Block
from d3mlx.request import Stats, Step

END, MASK = 256, 257


class ByteTokenizer:
    """One token a byte, so most characters that are not ASCII are spread over several tokens."""

    all_special_ids = (END, MASK)
    eos_token_ids = (END,)

    def decode(self, tokens: list[int]) -> str:
        return bytes(tokens).decode("utf-8", errors="replace")


def step_of(
    index: int, positions: list[int], tokens: list[int], length: int, entropy: float = 0.5, first: int = 1
) -> Step:
    """Return a step of an answer of `length` positions from `first` on."""
    empty = np.empty(0, np.int32)
    size = max(1, length // 3)
    starts = range(first, first + min(2 * size, length), size)
    blocks = tuple(Block(start, min(start + size, first + length), 1, start == first) for start in starts)
    count = len(positions)
    return Step(
        index, "step", np.array(positions), np.array(tokens), np.full(count, entropy, np.float32), empty, empty, empty,
        np.empty(0, np.float32), blocks, 10, Stats(index + 1, 10 * (index + 1), 3, count),
    )  # fmt: skip


def view_of(length: int, prompt: tuple[int, ...] = (1,)) -> View:
    canvas = Canvas.for_prompt(prompt, length, MASK, (END,))
    canvas.extend(len(canvas))
    generation = SimpleNamespace(canvas=canvas, layout=SimpleNamespace(start=len(prompt)), stopped=False)
    return View(generation, ByteTokenizer(), "model · decoder")  # type: ignore[arg-type]


def frame(view: View, width: int, height: int = 20, **options: Any) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, height=height, **options).print(view)
    return out.getvalue().splitlines()


TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30)


@settings(max_examples=60)
@given(text=TEXT, width=st.integers(12, 100), seed=st.integers(0, 999), colors=st.booleans())
def test_no_frame_is_wider_or_taller_than_the_terminal(text: str, width: int, seed: int, colors: bool) -> None:
    data = text.encode()
    view = view_of(len(data))
    order = np.random.default_rng(seed).permutation(len(data))
    for index, position in enumerate(order.tolist()):
        view.cells.canvas.commit(np.array([position + 1]), np.array([data[position]]))
        view.take(step_of(index, [position + 1], [data[position]], len(data)))
        lines = frame(view, width, height=12)
        assert len(lines) <= 12
        assert all(cell_len(line) <= width for line in lines)
    view.over, view.cropped = True, False
    shown = "".join("".join(frame(view, width)).split())
    letters = [c for c in printable(text) if c.isalnum() and c.isascii()]
    assert all(letter in shown for letter in letters)


def test_the_prompt_is_not_shown() -> None:
    view = view_of(9, (*b"quiz", MASK))
    view.cells.canvas.commit(np.array([7]), np.array([ord("a")]))
    view.take(step_of(0, [7], [ord("a")], 9, first=5))
    canvas, bar = [line for line in frame(view, 40) if line.strip(" ─")][1:3]
    # Two of three blocks are active, and the first must make progress.
    assert canvas.split() == ["░░a░░░···"]
    assert bar.split()[0] == "▓▒·"


def test_half_a_character_waits_for_the_rest() -> None:
    data = "好!".encode()
    view = view_of(len(data))
    view.cells.canvas.commit(np.array([1, 2]), np.array([data[0], data[1]]))
    view.take(step_of(0, [1, 2], [data[0], data[1]], len(data)))
    assert "好" not in "".join(frame(view, 40))
    assert "�" not in "".join(frame(view, 40))
    view.cells.canvas.commit(np.array([3, 4]), np.array([data[2], data[3]]))
    view.take(step_of(1, [3, 4], [data[2], data[3]], len(data)))
    assert "好!" in "".join(frame(view, 40))


def test_bytes_that_never_become_a_character_are_shown_as_such() -> None:
    view = view_of(6)
    tokens = [255, 255, 255, 255, 255, ord("a")]
    view.cells.canvas.commit(np.arange(1, 7), np.array(tokens))
    view.take(step_of(0, list(range(1, 7)), tokens, 6))
    assert "�����a" in "".join(frame(view, 40))


def test_text_cannot_move_the_cursor() -> None:
    assert printable("a\x1b[2J\rb\tc\n") == "a�[2J�b    c\n"


def test_a_long_answer_shows_where_the_action_is() -> None:
    length = 2000
    view = view_of(length)
    view.cells.canvas.commit(np.arange(1, 1501), np.full(1500, ord("x")))
    view.take(step_of(0, list(range(1, 1501)), [ord("x")] * 1500, length))
    lines = frame(view, 50, height=15)
    assert len(lines) <= 15
    assert any("x" in line and ("░" in line or "·" in line) for line in lines)


def test_what_follows_the_end_is_hidden() -> None:
    view = view_of(6)
    tokens = [ord("o"), ord("k"), END, ord("n"), ord("o"), ord("!")]
    view.cells.canvas.commit(np.arange(1, 7), np.array(tokens))
    view.take(step_of(0, list(range(1, 7)), tokens, 6))
    view.over = True
    assert "no!" not in "".join(frame(view, 40))


def test_what_follows_a_stop_text_is_hidden_in_the_end() -> None:
    view = view_of(4)
    view.cells.canvas.commit(np.arange(1, 5), np.array([ord(letter) for letter in "ok#!"]))
    view.take(step_of(0, list(range(1, 5)), [ord(letter) for letter in "ok#!"], 4))
    view.generation.stopped, view.generation.text, view.over = True, "ok", True  # type: ignore[misc]
    assert "".join(frame(view, 40)).count("ok") == 1 and "#" not in "".join(frame(view, 40))


def test_commits_are_lit_and_cool() -> None:
    view = view_of(2)
    view.cells.canvas.commit(np.array([1]), np.array([ord("a")]))
    view.take(step_of(0, [1], [ord("a")], 2))
    options: dict[str, Any] = {"force_terminal": True, "color_system": "truecolor"}
    lit = "".join(frame(view, 40, **options))
    color = entropy_color(0.5).removeprefix("rgb(").removesuffix(")").replace(",", ";")
    assert f"48;2;{color}" in lit
    for index in range(1, 6):
        view.take(step_of(index, [], [], 2))
    assert f"2;{color}" not in "".join(frame(view, 40, **options))


def test_without_colors_a_fresh_commit_is_still_marked(monkeypatch: Any) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    view = view_of(2)
    view.cells.canvas.commit(np.array([1]), np.array([ord("a")]))
    view.take(step_of(0, [1], [ord("a")], 2))
    drawn = "".join(frame(view, 40, force_terminal=True))
    assert "38;" not in drawn
    assert "48;" not in drawn
    assert "\x1b[1m" in drawn or "\x1b[1;7m" in drawn


def test_entropy_has_a_colour_from_sure_to_unsure() -> None:
    assert len({entropy_color(e) for e in (0.0, 0.5, 1.0, 1.5, 2.0)}) == 5
    assert entropy_color(2.0) == entropy_color(50.0) == entropy_color(float("inf"))


def test_the_live_view_leaves_the_answer_and_the_statistics() -> None:
    out = io.StringIO()
    console = Console(file=out, width=60, height=20, force_terminal=True)
    view = view_of(3)
    live = LiveView(view.generation, ByteTokenizer(), "t", console)
    live.start()
    view.cells.canvas.commit(np.array([1, 2, 3]), np.array([ord("y"), ord("e"), ord("s")]))
    live.step(step_of(0, [1, 2, 3], [ord("y"), ord("e"), ord("s")], 3))
    console.size = (30, 20)  # type: ignore[assignment]
    live.drawn = 0
    live.step(step_of(1, [], [], 3))
    live.finish(SimpleNamespace(lines=lambda: ["Prompt: 1 tokens"]))  # type: ignore[arg-type]
    live.close()
    assert "yes" in out.getvalue().rsplit("Prompt: 1 tokens")[0]
    assert out.getvalue().count("\x1b[?25l") == out.getvalue().count("\x1b[?25h")


def test_an_interrupted_view_leaves_what_has_come_out() -> None:
    out = io.StringIO()
    view = view_of(3)
    console = Console(file=out, width=60, height=20, force_terminal=True)
    live = LiveView(view.generation, ByteTokenizer(), "t", console)
    live.start()
    live.step(step_of(0, [1, 2], [ord("y"), ord("e")], 3))
    frames = len(out.getvalue())
    live.close()
    left = out.getvalue()[frames:]
    assert "ye" in re.sub(r"\x1b\[[0-9;]*m", "", left.rsplit("\x1b[?25h")[-1])
