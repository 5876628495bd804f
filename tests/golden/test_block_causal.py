"""Every reference decode of a block-causal model gives the same tokens, forwards, accepted positions and rows."""

from __future__ import annotations

from itertools import groupby

import pytest

from tests.golden.block_cases import FAMILIES, BlockCase, block_cases, corrected, mismatch, run_together
from tests.metal import emulated
from tests.metal.requirements import require_compiler

GROUPS = {
    (family, name): [case for case in members if corrected(case).output]
    for family in FAMILIES
    for name, members in groupby(block_cases(family), key=lambda case: case.group)
}
NAMED = [pytest.param(*name, id="/".join(name)) for name in GROUPS]


def differences(cases: list[BlockCase]) -> dict[int, str]:
    results = run_together(cases)
    return {
        i: problem
        for i, (case, (request, steps)) in enumerate(zip(cases, results, strict=True))
        if (problem := mismatch(case, request, steps))
    }


@pytest.mark.parametrize(("family", "group"), NAMED)
def test_decodes_as_published(
    family: str, group: str, request: pytest.FixtureRequest, golden_report: list[str]
) -> None:
    """The corrected results replace those that depend on a defect of the reference."""
    members = GROUPS[family, group]
    some = members if request.config.getoption("--emulate-all") else members[::3]
    golden_report.append(f"{family} {group}: {len(some)} of {len(members)} ran")
    assert differences([corrected(case) for case in some]) == {}


@pytest.mark.parametrize(
    ("family", "group"),
    [
        ("sdar", "clean_dyn_b8_s4_t.5"),
        ("fast_dllm_v2", "b16_s4_t.5"),
        ("llada2_moe", "v20_b8_s3_t.8"),
        ("llada2_moe", "v21_b8_t.5_e0"),
        ("stable_diffcoder", "b8_s3"),
    ],
)
def test_decodes_as_published_on_kernels(family: str, group: str) -> None:
    """The same test with emulated Metal kernels instead of their references."""
    require_compiler()
    with emulated() as records:
        assert differences(GROUPS[family, group][:1]) == {}
    assert records


def test_nothing_is_left_out() -> None:
    counts = {"sdar": (400, 0), "fast_dllm_v2": (186, 2), "llada2_moe": (190, 0), "stable_diffcoder": (105, 0)}
    for family, (count, empty) in counts.items():
        everything = block_cases(family)
        assert len(everything) == count
        assert sum(len(members) for (of, _), members in GROUPS.items() if of == family) == count - empty
        # A reference that decodes only whole blocks returns nothing for these two prompts.
        assert sum(not corrected(case).output for case in everything) == empty


@pytest.mark.parametrize(
    ("family", "group"),
    [
        ("sdar", "dyn_b4_s4_t0.5"),
        ("sdar", "dyn_b8_s8_t0.85"),
        ("sdar", "static_b4_s3"),
        ("sdar", "seq_b16_s5"),
        ("sdar", "stop_dyn_b8_s8_t.85"),
        ("stable_diffcoder", "b4_s4_t0.9"),
        ("stable_diffcoder", "b8_s3"),
    ],
)
def test_a_fused_commit_saves_forwards_and_changes_nothing_else(family: str, group: str) -> None:
    """Commits and prefills share the first forward of the next block."""
    cases = [corrected(case) for case in GROUPS[family, group]]
    fused, separate = run_together(cases, commits="fused"), run_together(cases)
    saved = 0
    for (request, steps), (other, others) in zip(fused, separate, strict=True):
        assert request.canvas.tokens.tolist() == other.canvas.tokens.tolist()
        stored = [each for each in others if each.kind in ("prefill", "commit")]
        assert [each.positions.tolist() for each in steps] == [
            each.positions.tolist() for each in others if each not in stored
        ]
        assert (len(others) - len(steps), request.stats.rows) == (len(stored), other.stats.rows)
        assert len([each for each in steps if each.kind == "first"]) == len(stored)
        saved += len(stored)
    assert saved > 10


def test_each_defect_of_the_reference_is_corrected() -> None:
    """A corrected run never changes a given token, and its results differ from those of the defect."""
    tags = set()
    for family in FAMILIES:
        for case in block_cases(family):
            if case.data.get("quirks"):
                right = corrected(case)
                tags |= set(case.data["quirks"])
                assert any(case.data[name] != right.data[name] for name in ("output", "accepted"))
                given = range(len(case.prompt))
                assert not any(set(given) & set(positions) for positions in right.data["accepted"])
    assert tags == {
        "overwrites_fixed",
        "mask_in_prompt",
        "topk1_conf1",
        "prompt_of_one_block_lost",
        "eos_in_prompt",
        "masks_left",
    }
