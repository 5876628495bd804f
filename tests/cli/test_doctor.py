"""`d3mlx doctor`: the report of a machine, its JSON, and its exit status."""

from __future__ import annotations

import json
from typing import Any

import pytest

from d3mlx.bench import diagnosis
from d3mlx.kernels import dispatch, guard
from d3mlx.kernels.dispatch import Kernel, Launch
from tests.metal import Emulation, emulated
from tests.metal.requirements import require_compiler


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test without a network and without earlier checks of kernels."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(guard, "failures", {})
    monkeypatch.setattr(guard, "verified", set())


def test_a_machine_without_faults(d3mlx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D3MLX_KERNELS", "off")
    done = d3mlx("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(done.out)}
    assert (done.status, done.err) == (0, "")
    assert list(checks) == list(diagnosis.CHECKS)
    assert "wrong" not in {check["state"] for check in checks.values()}
    assert "The answer is 36." in checks["Answer"]["text"]
    assert checks["Hub"]["state"] == "note"
    assert "references run instead" in checks["Kernels"]["text"]
    table = d3mlx("doctor").out
    assert all(name in table for name in checks)


def test_a_hub_that_does_not_answer_is_wrong(d3mlx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    done = d3mlx("doctor")
    assert done.status == 1
    assert "http://127.0.0.1:9 does not answer within 5 s" in " ".join(done.out.split())


def test_kernels_are_counted_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    require_compiler()
    monkeypatch.setattr(diagnosis, "PRESETS", {name: diagnosis.PRESETS[name] for name in ("d3llm", "sdar")})
    with emulated(Emulation(seed=1)):
        right = diagnosis.run_check("Kernels")
        assert (right.state, right.text) == (
            "ok",
            "Correct variants: accept_confidence_below 2, accept_entropy 2, refresh_rows 6, token_stats_draw 6, "
            "token_stats_likeliest 3, token_stats_scores 3.",
        )
        emulator = dispatch.run

        def run(kernel: Kernel, launch: Launch) -> Any:
            if kernel.name == "accept_entropy":
                raise RuntimeError("error: unknown type name 'half4x9'")
            return emulator(kernel, launch)

        guard.verified.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dispatch, "run", run)
            wrong = diagnosis.run_check("Kernels")
    assert wrong.state == "wrong"
    assert wrong.text.startswith("accept_entropy does not work, so its slower reference runs. error: unknown type name")


def test_an_error_of_a_check_is_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(diagnosis.CHECKS, "Memory", lambda: ("ok", str(1 / 0)))
    assert diagnosis.run_check("Memory") == diagnosis.Check("Memory", "wrong", "ZeroDivisionError: division by zero")
