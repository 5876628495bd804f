"""Every reference decode gives the same tokens, forwards and accepted positions, and recorded rows and blocks."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import pytest

from tests.golden.cases import FILES, cases, mismatches
from tests.metal import emulated
from tests.metal.requirements import require_compiler

GROUPS = {
    (file, name): list(members) for file in FILES for name, members in groupby(cases(file), key=lambda c: c.group)
}
NAMED = [pytest.param(file, group, id=f"{file}/{group}") for file, group in GROUPS]


@pytest.mark.parametrize(("file", "group"), NAMED)
def test_decodes_as_published(file: str, group: str, golden_report: list[str]) -> None:
    """The cases of a group share forwards. The next test decodes cases alone."""
    members = GROUPS[file, group]
    ran = [case for case in members if not case.left_out]
    left_out = Counter("+".join(sorted(case.left_out)) for case in members if case.left_out)
    tags = ", ".join(f"{count} for {tag}" for tag, count in sorted(left_out.items())) or "none"
    golden_report.append(f"{file} {group}: {len(ran)} of {len(members)} ran, left out: {tags}")
    assert not mismatches(ran)


@pytest.mark.parametrize(("file", "group"), NAMED)
def test_decodes_as_published_on_kernels(file: str, group: str, request: pytest.FixtureRequest) -> None:
    """The same test with emulated Metal kernels, by default on the shortest case of a group."""
    require_compiler()
    members = [case for case in GROUPS[file, group] if not case.left_out]
    shortest = sorted(members, key=lambda case: int(case.data["n_forward"]))[:1]
    some = members if request.config.getoption("--emulate-all") else shortest
    with emulated() as records:
        wrong = [problem for case in some for problem in mismatches([case]).values()]
    assert not wrong
    assert bool(records) == bool(some)


def test_nothing_is_left_out_silently() -> None:
    everything = [case for file in FILES for case in cases(file)]
    untagged = [case for case in everything if not case.data.get("quirks")]
    assert (len(everything), len(untagged)) == (1212, 852)
    for family in ("llada", "dream"):
        assert sum(case.blocks is not None for case in everything if case.family == family) >= 20
        assert sum(case.rows is not None for case in everything if case.family == family) >= 9
