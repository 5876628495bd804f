"""Fixtures of all tests, and the report on the reference cases, collected from all worker processes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings

# A machine may be slow or busy, and no test asserts a time.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

REPORT: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--emulate-all",
        action="store_true",
        help="Run all reference cases, also with emulated kernels, not only some of each group.",
    )


@pytest.fixture
def golden_report(request: pytest.FixtureRequest) -> Any:
    """Yield a list of lines to print at the end of the run."""
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
