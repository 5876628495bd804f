"""`d3mlx replay` and traces as pages, which a real browser opens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from d3mlx.cli.render.live import entropy_color
from tests.examples import ANSWER, QUESTION

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
TAB, ESCAPE, LEFT, RIGHT, DOWN = "\ue004", "\ue00c", "\ue012", "\ue014", "\ue015"
"""Keys, as a browser's driver takes them."""

HOSTILE = "</script><script>document.body.remove()</script>\u2028{{run}}"


@pytest.fixture
def trace(d3mlx: Any, tmp_path: Path) -> Path:
    path = tmp_path / "run.json"
    assert d3mlx("generate", QUESTION, "--trace", str(path)).status == 0
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Yield a browser that counts as a machine without a network."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed.")
    if not (CHROMIUM.exists() and DRIVER.exists()):
        pytest.skip(f"{CHROMIUM} or {DRIVER} is not installed.")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for switch in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
    ):
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


class Page:
    """A page in the browser."""

    def __init__(self, browser: Any, path: Path, width: int = 1280):
        self.browser = browser
        browser.execute_cdp_cmd("Network.enable", {})
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(path.as_uri())

    def run(self, script: str) -> Any:
        return self.browser.execute_script(script)

    def press(self, *keys: str) -> None:
        """Send keys to the element that has the focus."""
        self.browser.switch_to.active_element.send_keys(*keys)

    def click(self, name: str) -> None:
        self.browser.find_element("id", name).click()

    def text(self, name: str) -> str:
        return str(self.run(f"return document.getElementById('{name}').innerText"))

    def canvas(self, kind: str = "") -> str:
        """Return the text of the shown tokens that have a class and are not masks."""
        return str(
            self.run(
                f"return [...document.querySelectorAll('.token{kind}:not(.mask):not([hidden])')]"
                ".map((token) => token.textContent).join('')"
            )
        )

    def count(self, selector: str) -> int:
        return int(self.run(f"return document.querySelectorAll('{selector}').length"))


class Recorded:
    """A recorded run of one round."""

    def __init__(self, trace: Path):
        self.record = json.loads(trace.read_text())
        self.steps = self.record["steps"]

    def text(self, positions: list[int]) -> str:
        """Return the text of the final tokens at these positions."""
        canvas = self.record["canvas"]
        return "".join(canvas["texts"][position - canvas["start"]] or "" for position in sorted(positions))

    def committed(self, step: int) -> str:
        """Return the text of the tokens that a step committed."""
        return self.text(self.steps[step]["positions"])

    def facts(self, position: int) -> tuple[str, ...]:
        """Return what the page tells about the token at a position: text, entropy, step and id."""
        number, step = next((i, step) for i, step in enumerate(self.steps, 1) if position in step["positions"])
        at = step["positions"].index(position)
        return (
            f"“{self.text([position])}”",
            f"Entropy {step['entropies'][at]:.2f} nats",
            f"Committed in step {number} of {len(self.steps)}",
            f"Token {step['tokens'][at]} at position {position}",
        )


def test_a_page_plays_the_run(d3mlx: Any, trace: Path, browser: Any) -> None:
    status, out, _ = d3mlx("replay", str(trace))
    target = trace.with_suffix(".html")
    assert (status, out) == (0, f"{target} is written. Open it in a browser.\n")
    page, run = Page(browser, target), Recorded(trace)
    last = len(run.steps)
    assert (page.canvas(), page.count(".mask"), page.text("where")) == ("", 8, f"Step 0 of {last}")
    page.click("next")
    assert page.canvas(".age0") == page.canvas() == run.committed(0) != ""
    page.run("document.activeElement.blur()")
    page.press(RIGHT)
    assert page.canvas(".age1") == run.committed(0)
    step, stats = run.steps[1], run.steps[1]["stats"]
    tokens = "1 token" if len(step["positions"]) == 1 else f"{len(step['positions'])} tokens"
    assert page.text("step").startswith(f"Denoising step. {step['rows']} rows, {tokens}. Mean entropy ")
    figures = ["2", str(stats["tokens"]), f"{stats['tokens'] / 2:.2f}"]
    assert [page.text(name) for name in ("forwards", "tokens", "tpf")] == figures
    page.press(" ")
    browser.implicitly_wait(10)
    browser.find_element("css selector", "#next:disabled")
    assert (page.canvas(), page.count(".mask:not([hidden])")) == (ANSWER, 0)
    assert page.text("tokens") == str(run.record["stats"]["tokens"])
    count = run.steps[-1]["stats"]["tokens"] - run.steps[-2]["stats"]["tokens"]
    assert page.text("spoken") == f"Step {last} of {last}. {count} new tokens: {run.committed(-1)}"
    assert page.run("return performance.getEntriesByType('resource').length") == 0
    assert browser.get_log("browser") == []


def test_the_keyboard_reaches_every_token(d3mlx: Any, trace: Path, browser: Any) -> None:
    assert d3mlx("replay", str(trace), "-o", str(trace.with_name("page.htm"))).status == 0
    page, run = Page(browser, trace.with_name("page.htm"), width=375), Recorded(trace)
    last = len(run.steps)
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    page.run(f"go({last})")
    page.press(TAB)
    start = run.record["canvas"]["start"]
    assert page.run("return [...tip.children].map((line) => line.textContent)") == list(run.facts(start))
    page.press(RIGHT)
    second = run.facts(start + 1)
    assert page.text("tip").splitlines()[0] == second[0]
    assert page.run("return document.activeElement.getAttribute('aria-label')") == ". ".join(second)
    page.press(DOWN)
    assert page.run("return current.span.getBoundingClientRect().top > cells[0].span.getBoundingClientRect().top")
    page.press(ESCAPE)
    assert page.run("return document.getElementById('tip').hidden")
    page.run("document.getElementById('slider').focus()")
    page.press(LEFT)
    assert page.text("where") == f"Step {last - 1} of {last}"


def test_colors_and_motion_follow_the_system(trace: Path, d3mlx: Any, browser: Any) -> None:
    d3mlx("replay", str(trace))
    backgrounds = set()
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        features.append({"name": "prefers-reduced-motion", "value": "reduce"})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        page = Page(browser, trace.with_suffix(".html"))
        backgrounds.add(page.run("return getComputedStyle(document.body).backgroundColor"))
        page.run(f"go({len(Recorded(trace).steps)})")
        assert page.run("return getComputedStyle(cells[0].span).transitionDuration") == "0s"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert len(backgrounds) == 2
    for entropy in (0, 0.3, 1, 1.7, 3):
        assert page.run(f"return heat({entropy})").replace(" ", ",") == entropy_color(entropy)


def test_texts_are_data(d3mlx: Any, trace: Path, browser: Any) -> None:
    record = json.loads(trace.read_text())
    texts = record["canvas"]["texts"]
    texts[:3] = [None, None, HOSTILE]
    record["text"] = record["config"]["prompt"][0]["content"] = record["config"]["model"] = HOSTILE
    trace.write_text(json.dumps(record))
    d3mlx("replay", str(trace))
    page = Page(browser, trace.with_suffix(".html"))
    page.click("next")
    assert page.run("return cells[0].span.textContent") == HOSTILE
    assert page.run("return document.getElementById('text').textContent") == HOSTILE
    assert page.text("tip") == ""
    assert browser.get_log("browser") == []


def test_a_character_of_several_tokens_has_its_text_at_the_last_of_them(
    d3mlx: Any, llada: str, tmp_path: Path, browser: Any
) -> None:
    path = tmp_path / "run.json"
    options = ("--suffix", ". é🎉", "--raw", "--max-tokens", "8", "--model", llada)
    assert d3mlx("generate", "hi", *options, "--trace", str(path)).status == 0
    record = json.loads(path.read_text())
    canvas = record["canvas"]
    assert canvas["texts"][-6:] == [None, "é", None, None, None, "🎉"]
    assert (canvas["start"], canvas["texts"][:2]) == (0, ["h", "i"])
    d3mlx("replay", str(path))
    page = Page(browser, path.with_suffix(".html"))
    assert page.canvas(".given") == "hi. é🎉"


def test_generate_writes_a_page(d3mlx: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.HTML"
    assert d3mlx("generate", QUESTION, "--trace", str(path)).status == 0
    content = path.read_text()
    assert content.startswith("<!doctype html>")
    assert not re.search(r"(src|href)=\"(?!data:)", content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist."),
        ("{", "is not a trace. Write one with d3mlx generate --trace FILE.json."),
        ("[" * 100_000, "is not a trace."),
        ('{"steps": []}', "is not a trace."),
        ('"text"', "is not a trace."),
        ("\xff", "is not a trace."),
        ({"canvas": None}, "was written by an earlier version of d3mlx. Write the trace again."),
        ({"steps": []}, "The trace is damaged. Write it again with d3mlx generate --trace FILE.json."),
        ({"config": {}}, "The trace is damaged."),
        ({"text": 5}, "The trace is damaged."),
    ],
)
def test_a_file_that_is_not_a_trace_is_refused(d3mlx: Any, trace: Path, content: Any, message: str) -> None:
    if isinstance(content, dict):
        record = json.loads(trace.read_text()) | content
        trace.write_text(json.dumps({name: value for name, value in record.items() if value is not None}))
    elif content is None:
        trace.unlink()
    else:
        trace.write_bytes(content.encode("latin-1"))
    status, out, err = d3mlx("replay", str(trace))
    assert (status, out, err.count("\n"), message in err) == (1, "", 1, True), err
    assert not trace.with_suffix(".html").exists()


def test_a_page_that_cannot_be_written_is_refused(d3mlx: Any, trace: Path) -> None:
    for target, message in (
        (trace, "is the trace. Give another file with --output."),
        (trace.parent, "is a folder. Give the name of a file."),
        (trace.parent / "absent" / "run.html", "there is no folder"),
        (trace / "run.html", "Cannot write"),
    ):
        status, _, err = d3mlx("replay", str(trace), "--output", str(target))
        assert (status, err.count("\n"), message in err) == (1, 1, True), err
    assert [path.name for path in trace.parent.iterdir()] == ["run.json"]
