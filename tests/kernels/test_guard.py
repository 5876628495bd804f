"""The guard of kernels: the warm-up covers every variant of a run, and a kernel that fails is replaced."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from d3mlx import D3LLM, FastDLLM, Generation, Sampling, Selective, Vanilla, load
from d3mlx.decoding.options import Options
from d3mlx.errors import ConfigError, D3Warning
from d3mlx.kernels import dispatch, guard
from d3mlx.kernels.dispatch import Kernel, Launch
from d3mlx.warmup import warm_up
from tests.examples import QUESTION
from tests.golden.cases import model
from tests.kernels.conftest import Executor
from tests.metal import Emulation

RUNS: list[tuple[Options, Sampling]] = [
    (D3LLM(), Sampling()),
    (Selective(rows=16), Sampling(0.5, seed=3)),
    (Selective(relaxed_threshold=0.65), Sampling()),
    (FastDLLM(cache="prefix"), Sampling(0.5, top_p=0.9)),
    (FastDLLM(factor=1.0, kv_bits=8), Sampling()),
    (Vanilla(steps=16, alg="random"), Sampling()),
]
Launches = list[tuple[Kernel, Launch]]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget all earlier checks."""
    monkeypatch.setattr(guard, "failures", {})
    monkeypatch.setattr(guard, "verified", set())
    monkeypatch.setattr("d3mlx.warmup._done", set())


@pytest.fixture
def launches(fresh: None, emulator: Executor) -> Iterator[Launches]:
    """Run kernels in the emulator, and record each launch."""
    recorded: Launches = []
    # The inner patches must end before those of the emulator.
    with emulator(Emulation(seed=1)), pytest.MonkeyPatch.context() as patch:
        emulated = dispatch.run

        def run(kernel: Kernel, launch: Launch) -> list[mx.array]:
            recorded.append((kernel, launch))
            return emulated(kernel, launch)

        patch.setattr(dispatch, "run", run)
        yield recorded


def generation(preset: Options = RUNS[0][0], sampling: Sampling = RUNS[0][1]) -> Generation:
    """Return a short run of the bundled model."""
    bundled, tokenizer = load()
    return Generation(
        bundled, tokenizer, [{"role": "user", "content": QUESTION}], preset, sampling=sampling, max_tokens=24
    )


@pytest.mark.parametrize(("preset", "sampling"), RUNS, ids=lambda value: type(value).__name__)
def test_the_warm_up_checks_every_variant_of_a_run(launches: Launches, preset: Options, sampling: Sampling) -> None:
    check_warm_up(launches, generation(preset, sampling), sampling)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.5, top_p=0.9)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("family", ["sdar", "fast_dllm_v2"])
def test_the_warm_up_checks_every_variant_of_a_block_causal_run(
    launches: Launches, family: str, sampling: Sampling
) -> None:
    run = Generation(model(family), None, [7, 9, 30, 31, 32], sampling=sampling, max_tokens=24)
    check_warm_up(launches, run, sampling)


def check_warm_up(launches: Launches, run: Generation, sampling: Sampling) -> None:
    warm_up(run.model, run.decoder, sampling)
    assert guard.failures == {}
    assert {guard.variant_of(*call) for call in launches} == guard.verified
    del launches[:]
    list(run)
    assert launches
    assert {guard.variant_of(*call) for call in launches} <= guard.verified
    # A second run of the same kind starts at once.
    before = len(launches)
    warm_up(run.model, run.decoder, sampling)
    assert len(launches) == before


@pytest.mark.parametrize(("preset", "sampling"), RUNS, ids=lambda value: type(value).__name__)
def test_a_run_needs_few_pipelines(launches: Launches, preset: Options, sampling: Sampling) -> None:
    """Each kernel of a run has at most two texts: one for ordinary inputs, and one for inputs of a few elements."""
    run = generation(preset, sampling)
    warm_up(run.model, run.decoder, sampling)
    pipelines = Counter(str(name) for name, *_ in guard.verified)
    assert len(pipelines) == 3
    assert pipelines["refresh_rows"] == 2
    assert max(pipelines.values()) == 2


def broken(how: str, culprit: str, patch: pytest.MonkeyPatch) -> None:
    """Make the kernel `culprit` fail."""
    emulated = dispatch.run

    def run(kernel: Kernel, launch: Launch) -> list[mx.array]:
        if not kernel.name.startswith(culprit):
            return emulated(kernel, launch)
        if how == "compilation":
            raise RuntimeError("Unable to build metal library from source\nprogram_source:12:3: error: no such type")
        outputs = emulated(kernel, launch)
        if how == "wrong value":
            return [output + 1 for output in outputs]
        refused.extend(outputs)
        return outputs

    def evaluate(*arrays: Any) -> None:
        # MLX runs a kernel when its output is evaluated, so an error of a launch appears there.
        flat = [array for _, array in tree_flatten(list(arrays))]
        if any(array is output for output in refused for array in flat):
            raise RuntimeError("Command buffer execution failed: Internal Error")
        mx_eval(*arrays)

    mx_eval, refused = mx.eval, list[mx.array]()
    patch.setattr(dispatch, "run", run)
    patch.setattr(mx, "eval", evaluate)


@pytest.mark.parametrize("how", ["compilation", "launch", "wrong value"])
@pytest.mark.parametrize("culprit", ["token_stats", "accept", "refresh_rows"])
def test_a_kernel_that_fails_is_replaced(launches: Launches, how: str, culprit: str) -> None:
    preset = Selective(rows=16)
    right = [step.tokens.tolist() for step in generation(preset)]
    with pytest.MonkeyPatch.context() as patch:
        broken(how, culprit, patch)
        run = generation(preset)
        with pytest.warns(D3Warning) as raised:
            warm_up(run.model, run.decoder, Sampling())
        (name,) = guard.failures
        assert name.startswith(culprit)
        message = str(raised[0].message)
        assert len(raised) == 1
        assert message.startswith(f"The Metal kernel {name} does not work on this machine")
        assert {
            "compilation": "program_source:12:3: error: no such type",
            "launch": "Command buffer execution failed",
            "wrong value": "is wrong: element 0 is",
        }[how] in message
        del launches[:]
        with warnings.catch_warnings(action="error"):
            assert [step.tokens.tolist() for step in run] == right
    assert launches
    assert name not in {kernel.name for kernel, _ in launches}


def test_kernels_can_be_switched_off(launches: Launches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D3MLX_KERNELS", "off")
    run = generation()
    warm_up(run.model, run.decoder, Sampling())
    list(run)
    assert launches == []
    monkeypatch.setenv("D3MLX_KERNELS", "0")
    with pytest.raises(ConfigError, match=r"Invalid D3MLX_KERNELS '0'\. Use on or off\."):
        list(generation())


def test_an_invalid_switch_is_refused_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D3MLX_KERNELS", "nope")
    with pytest.raises(ConfigError, match="Invalid D3MLX_KERNELS"):
        generation()
