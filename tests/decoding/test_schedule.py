"""Blocks and rows on the host are equal to those of the rules written as plain Python."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from d3mlx.canvas import Canvas
from d3mlx.decoding.schedule import (
    ADD,
    CLOSED,
    END,
    FILL,
    FULL,
    MASKS,
    OPEN,
    START,
    STATE,
    ActiveBlocks,
    MultiBlock,
    active_end,
    advance,
)
from d3mlx.decoding.selective_cache import NEVER, distances, lowest

MASK, END_TOKEN = 99, 98
Table = list[list[int]]


def move(blocks: Table) -> None:
    """Apply one step of d3LLM's rules: promote the blocks that were added, and add at most one."""
    added = sum(block[STATE] != CLOSED for block in blocks)
    for before, block in pairwise(blocks[:added]):
        if before[MASKS] <= before[FILL]:
            block[STATE] = FULL
    if added < len(blocks):
        newest, block = blocks[added - 1], blocks[added]
        if newest[MASKS] <= newest[ADD]:
            block[STATE] = FULL if newest[MASKS] <= newest[FILL] else OPEN


def truth(table: Table, masked: list[bool]) -> Table:
    """Return the table after a step that leaves the positions of `masked` bool [L] masked."""
    blocks = [list(block) for block in table]
    for block in blocks:
        block[MASKS] = sum(masked[block[START] : block[END]])
    move(blocks)
    while any(masked) and not any(block[MASKS] for block in blocks if block[STATE] != CLOSED):
        move(blocks)
    return blocks


def tables(canvas: Canvas, schedule: MultiBlock, rng: np.random.Generator) -> Iterator[Table]:
    """Decode at random from the table before the first step; check each table against `truth`, then yield it."""
    table = schedule.block_table(canvas)
    yield table.tolist()
    while not canvas.done:
        eligible = canvas.masked_before(ActiveBlocks.of(table).end)
        count = rng.integers(0, len(eligible) + 1) if rng.random() < 0.7 else 1
        chosen = np.sort(rng.permutation(eligible)[:count]).astype(np.int32)
        tokens = np.where(rng.random(len(chosen)) < 0.03, END_TOKEN, 5).astype(np.int32)
        canvas.commit(chosen, tokens)
        before, table = table, advance(table, canvas)
        assert table.dtype == np.int32
        assert table.tolist() == truth(before.tolist(), canvas.masked.tolist())
        yield table.tolist()


@st.composite
def canvases(draw: st.DrawFn) -> Canvas:
    """Return a canvas with one hole or several, with or without end tokens."""
    prompt, holes = draw(st.integers(0, 9)), draw(st.integers(1, 3))
    given_tokens = [True] * prompt
    for hole in range(holes):
        given_tokens += [True] * (draw(st.integers(1, 20)) if hole else 0) + [False] * draw(st.integers(1, 30))
    given_tokens += [True] * draw(st.sampled_from([0, 0, 7]))
    ends = draw(st.sampled_from([(), (END_TOKEN,)]))
    return Canvas([5] * len(given_tokens), given_tokens, MASK, ends, early_stop=draw(st.booleans()))


shares = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 0.95, 1.0]) | st.floats(0, 1)
schedules = st.builds(
    MultiBlock,
    block_size=st.integers(1, 12),
    block_add=shares,
    activation=shares,
    ahead=st.none() | st.integers(0, 5),
)


@settings(max_examples=200)
@given(canvas=canvases(), schedule=schedules, seed=st.integers(0, 10**6))
def test_blocks_advance_by_the_rules(canvas: Canvas, schedule: MultiBlock, seed: int) -> None:
    before: Table = []
    for table in tables(canvas, schedule, np.random.default_rng(seed)):
        states = [block[STATE] for block in table]
        added = len(states) - states.count(CLOSED)
        assert CLOSED not in states[:added], "the blocks that were added come first"
        if before:
            assert all(old <= new for old, new in zip((block[STATE] for block in before), states, strict=True))
            assert [block[:MASKS] + block[ADD:] for block in table] == [block[:MASKS] + block[ADD:] for block in before]
        if any(block[MASKS] for block in table):
            active = ActiveBlocks.of(np.array(table, np.int32))
            assert active.end == table[added - 1][END]
            assert active.first_full.full
            assert canvas.masked[active.first_full.start : active.first_full.end].any()
            assert not canvas.masked[: active.first_full.start].any(), "the focus is the first block with masks"
        before = table


@settings(max_examples=200)
@given(canvas=canvases(), schedule=schedules)
def test_blocks_before_the_first_step(canvas: Canvas, schedule: MultiBlock) -> None:
    """Blocks cover the canvas from the first mask to the end, and their limits are the shares of the schedule."""
    table = schedule.block_table(canvas).tolist()
    starts = list(range(canvas.prompt_length, len(canvas), schedule.block_size))
    assert [block[START] for block in table] == starts
    assert [block[END] for block in table] == [*starts[1:], len(canvas)]
    for start, end, masks, _, add, fill in table:
        size = end - start
        assert masks == canvas.masked[start:end].sum()
        for limit, share in ((add, schedule.block_add), (fill, schedule.activation)):
            assert 0 <= limit <= size
            assert all((1 - left / size >= share) == (left <= limit) for left in range(size + 1))
    closed = [[*block[:STATE], CLOSED, *block[ADD:]] for block in table]
    closed[0][STATE] = FULL
    assert table == truth(closed, canvas.masked.tolist())


def test_a_step_adds_one_block_and_more_only_without_masks() -> None:
    canvas = Canvas.for_prompt([5] * 3, 16, MASK)
    schedule = MultiBlock(4, block_add=0.5, activation=1.0)

    def states_after(*positions: int) -> list[int]:
        nonlocal table
        chosen = np.array(positions, np.int32)
        canvas.commit(chosen, np.full(len(chosen), 5, np.int32))
        table = advance(table, canvas)
        return [int(state) for state in table[:, STATE]]

    table = schedule.block_table(canvas)
    assert table[:, STATE].tolist() == [FULL, CLOSED, CLOSED, CLOSED]
    assert states_after(3) == [FULL, CLOSED, CLOSED, CLOSED]
    # Half of the first block has tokens: the second block is added, and is not full yet.
    assert states_after(4) == [FULL, OPEN, CLOSED, CLOSED]
    # Both blocks are complete: a third block is added, and is full at once.
    assert states_after(5, 6, 7, 8, 9, 10) == [FULL, FULL, FULL, CLOSED]
    assert states_after(11, 13) == [FULL, FULL, FULL, OPEN]
    assert states_after(12, 14) == [FULL, FULL, FULL, FULL]


def test_given_blocks_between_two_holes_are_added_at_once() -> None:
    given_tokens = [True] * 3 + [False] * 4 + [True] * 12 + [False] * 4
    canvas = Canvas([5] * len(given_tokens), given_tokens, MASK)
    table = MultiBlock(4, block_add=1.0, activation=1.0).block_table(canvas)
    assert table[:, STATE].tolist() == [FULL, CLOSED, CLOSED, CLOSED, CLOSED]
    canvas.commit(np.arange(3, 7, dtype=np.int32), np.full(4, 5, np.int32))
    assert advance(table, canvas)[:, STATE].tolist() == [FULL] * 5


@settings(max_examples=200)
@given(canvas=canvases(), schedule=schedules, seed=st.integers(0, 10**6))
def test_the_active_part_ends_after_the_last_block_with_masks(canvas: Canvas, schedule: MultiBlock, seed: int) -> None:
    for table in tables(canvas, schedule, np.random.default_rng(seed)):
        if not any(block[MASKS] for block in table):
            break
        end = active_end(np.array(table, np.int32), schedule.ahead)
        eligible = canvas.masked_before(ActiveBlocks.of(np.array(table, np.int32)).end)
        assert len(eligible)
        assert eligible[-1] < end
        if schedule.ahead is None:
            assert end == len(canvas)
            continue
        added = sum(block[STATE] != CLOSED for block in table)
        assert end == max(block[END] for block in table[: added + schedule.ahead] if block[MASKS])


@settings(max_examples=200)
@given(data=st.data(), length=st.integers(1, 400))
def test_the_lowest_ranks_are_computed_and_of_equal_ones_the_lower_positions(data: st.DataObject, length: int) -> None:
    count = data.draw(st.integers(1, length))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    ranks = rng.integers(0, data.draw(st.sampled_from([1, 3, 10, 2**31 - 1])), length)
    rows = lowest(ranks, count)
    assert rows.dtype == np.int32
    assert rows.tolist() == sorted(sorted(range(length), key=lambda p: (ranks[p], p))[:count])


@given(marked=st.lists(st.booleans(), min_size=1, max_size=50))
def test_the_distance_to_the_nearest_marked_position(marked: list[bool]) -> None:
    places = [i for i, mark in enumerate(marked) if mark]
    expected = [min((abs(i - place) for place in places), default=NEVER) for i in range(len(marked))]
    assert distances(np.array(marked)).tolist() == expected
