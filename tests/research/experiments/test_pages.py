"""The generated parts of the result pages equal what the experiments write."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from d3mlx.research.experiments import ablations, figures, pages
from d3mlx.research.experiments.decoders import TASKS
from d3mlx.research.experiments.figures import RESULTS, ROOT


def results(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return content


def test_the_page_about_distillation_shows_the_report() -> None:
    report = results("report.json")
    assert pages.between(ROOT / pages.DISTILLATION, "report") == figures.section(report).strip()
    assert (ROOT / figures.PLOT).read_text(encoding="utf-8") == figures.plot(report)


def test_the_page_about_ablations_shows_their_results() -> None:
    assert pages.between(ROOT / pages.ABLATIONS, "ablations") == ablations.text(results("ablations.json"))


@pytest.mark.parametrize("name", TASKS)
def test_the_tables_of_decoders_name_the_measured_ones(name: str) -> None:
    text = pages.between(ROOT / pages.SELECTIVE, f"decoders-{name}")
    first_cells = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    decoders = list(TASKS[name].decoders)
    assert first_cells == ["decoder", "---", *decoders]
