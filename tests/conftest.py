"""Collects what the reference cases covered, from every worker process, and prints it at the end of the run."""

from __future__ import annotations

from typing import Any

import pytest

REPORT: list[str] = []


@pytest.fixture(scope="session", autouse=True)
def no_measurements(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """No test sees what `d3mlx bench` left on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D3MLX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--emulate-all",
        action="store_true",
        help="Run every reference case with emulated kernels, not one of each group.",
    )


@pytest.fixture
def golden_report(request: pytest.FixtureRequest) -> Any:
    """A list of lines for the end of the run."""
    lines: list[str] = []
    yield lines
    request.node.user_properties.extend(("golden", line) for line in lines)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":
        REPORT.extend(str(line) for name, line in report.user_properties if name == "golden")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if REPORT:
        terminalreporter.section("reference cases")
        for line in sorted(REPORT):
            terminalreporter.write_line(line)
