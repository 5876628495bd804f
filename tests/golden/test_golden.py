"""Every reference decode: tokens, forwards and accepted positions of each step."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import pytest

from tests.golden.cases import FILES, Case, cases, mismatch, run
from tests.metal import emulated
from tests.metal.requirements import require_compiler

GROUPS = {
    (file, name): list(members) for file in FILES for name, members in groupby(cases(file), key=lambda c: c.group)
}


@pytest.mark.parametrize(("file", "group"), GROUPS, ids="/".join)
def test_decodes_as_published(file: str, group: str, golden_report: list[str]) -> None:
    members = GROUPS[file, group]
    ran = [case for case in members if not case.left_out]
    left_out = Counter("+".join(sorted(case.left_out)) for case in members if case.left_out)
    tags = ", ".join(f"{count} for {tag}" for tag, count in sorted(left_out.items())) or "none"
    golden_report.append(f"{file} {group}: {len(ran)} of {len(members)} ran, left out: {tags}")
    wrong = {case.number: problem for case in ran if (problem := mismatch(case))}
    assert not wrong


@pytest.mark.parametrize(("file", "group"), GROUPS, ids="/".join)
def test_decodes_as_published_on_kernels(file: str, group: str, request: pytest.FixtureRequest) -> None:
    """The same with the Metal kernels in place of their references, run in the emulator."""
    require_compiler()
    members = [case for case in GROUPS[file, group] if not case.left_out]
    some = members if request.config.getoption("--emulate-all") else members[:2]
    with emulated() as records:
        wrong = {case.number: problem for case in some if (problem := mismatch(case))}
    assert not wrong
    assert bool(records) == bool(some)


def test_nothing_is_left_out_silently() -> None:
    everything = [case for file in FILES for case in cases(file)]
    untagged = [case for case in everything if not case.data.get("quirks")]
    assert (len(everything), len(untagged)) == (1212, 852)
    assert all(case.left_out <= {"stale", "dup", "shift", "tail", "masks_left"} for case in everything)


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_rows_of_the_delayed_cache(family: str) -> None:
    """The forwarded slices are the reference's, and rows reported are rows forwarded."""
    checked = 0
    for case in cases(f"{family}/multi_block_kv_cache"):
        if case.tags or case.number > 3:
            continue
        check_rows(case)
        checked += 1
    assert checked >= 9


def check_rows(case: Case) -> None:
    _, steps = run(case)
    expected = [rows for _, rows, *_ in case.data["fwd"]]
    assert [step.rows for step in steps] == expected
    assert steps[-1].stats.rows == sum(expected)


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_block_states(family: str) -> None:
    """Masks and activation of every block at every forward are the reference's."""
    checked = 0
    for case in cases(f"{family}/multi_block"):
        if case.tags or "blocks" not in case.data:
            continue
        _, steps = run(case)
        assert [[[b.masks, int(b.full)] for b in step.blocks] for step in steps] == case.data["blocks"]
        checked += 1
    assert checked >= 20
