"""The chat page in Chromium, with the API and the bundled model."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import d3mlx
from d3mlx import Sampling
from tests.examples import ANSWER, QUESTION

uvicorn = pytest.importorskip("uvicorn", reason="needs the packages of d3mlx serve")
webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")

from fastapi import FastAPI  # noqa: E402
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

from d3mlx.server.app import Settings, create_app  # noqa: E402
from d3mlx.server.fields import Defaults  # noqa: E402
from d3mlx.server.worker import Worker  # noqa: E402

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
PAGE = Path(d3mlx.__file__).parent / "server" / "page.html"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,800",
)
SECONDS = 20
"""Longest wait for a change of the page."""

LONG_QUESTION = (
    "Mia makes 10 pencils on each of 6 days and Noah makes 12 on each of 2 days. They share them all among 6 friends. "
    "How many pencils does each friend get?"
)

# Collects every state of the answers and of the text for screen readers, because a small model is fast.
RECORD = """
window.states = []; window.spoken = [];
new MutationObserver(() => {
  const answer = document.querySelector(".turn:last-child .answer");
  if (answer?.textContent) states.push([answer.textContent, answer.querySelectorAll(".token").length,
                           document.querySelectorAll(".block").length]);
}).observe(document.getElementById("turns"), {subtree: true, childList: true, characterData: true});
new MutationObserver(() => spoken.push(document.getElementById("announcer").textContent))
  .observe(document.getElementById("announcer"), {childList: true});
"""

# Returns the visible texts whose contrast with their background is below 4.5.
FAINT = """
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const light = (colors) => {
  canvas.clearRect(0, 0, 1, 1);
  for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
  const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const faint = [];
for (const node of document.querySelectorAll("body *")) {
  const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  const text = own ? node.textContent : node.placeholder;
  if (!text || node.closest("script, .unseen") || !node.checkVisibility()) continue;
  const grounds = [];
  for (let at = node; at; at = at.parentElement) grounds.unshift(getComputedStyle(at).backgroundColor);
  const color = own ? getComputedStyle(node).color : getComputedStyle(node, "::placeholder").color;
  const [a, b] = [light([...grounds, color]), light(grounds)].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) faint.push([text.trim(), (a + 0.05) / (b + 0.05)]);
}
return faint;
"""


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serve an application and its page in a thread. Yield the origin."""
    if not any(getattr(route, "path", None) == "/" for route in app.routes):
        app.add_api_route("/", lambda: HTMLResponse(PAGE.read_text("utf-8")), response_model=None)
    with socket.create_server(("127.0.0.1", 0)) as address:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, args=([address],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{address.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class Browser:
    """A tab of Chromium with the page of one origin, and everything that it sent and logged there."""

    def __init__(self, driver: Any, origin: str):
        self.driver, self.origin = driver, origin
        self.urls: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        driver.get_log("browser"), driver.get_log("performance")
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        self.media()
        driver.get(f"{origin}/")
        driver.execute_script("sessionStorage.clear(); localStorage.clear();")
        driver.refresh()
        driver.execute_script(RECORD)

    def media(self, scheme: str = "light", motion: str = "no-preference") -> None:
        """Simulate the settings of a system."""
        features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": motion}
        listed = [{"name": name, "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": listed})

    def narrow(self, width: int, height: int) -> None:
        """Simulate the screen of a phone."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)

    def all(self, selector: str) -> list[Any]:
        """Return the visible elements of a selector."""
        script = "return [...document.querySelectorAll(arguments[0])].filter((node) => node.checkVisibility())"
        return list(self.driver.execute_script(script, selector))

    def get(self, selector: str) -> Any:
        """Return the visible element of a selector. Wait for it."""
        self.wait(lambda: self.all(selector))
        (element,) = self.all(selector)
        return element

    def wait(self, condition: Any) -> None:
        """Wait until a condition is true."""
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end, self.get("body").text
            time.sleep(0.02)

    def run(self, script: str) -> Any:
        """Return the result of a script in the page."""
        return self.driver.execute_script(script)

    def ask(self, text: str, answers: int = 1) -> str:
        """Send a question with Enter. Return the final answer."""
        self.get("#question").send_keys(text, Keys.ENTER)
        self.wait(lambda: len(self.all("[aria-busy=false]")) == answers)
        return str(self.all(".answer")[-1].text)

    def logged(self) -> list[str]:
        """Return the new messages of the console."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def read_requests(self) -> None:
        """Add the new requests to `urls`, and the bodies of new questions to `bodies`."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                request = message["params"]["request"]
                self.urls.append(request["url"])
                if request["method"] == "POST":
                    self.bodies.append(json.loads(request["postData"]))


@pytest.fixture(scope="module")
def worker() -> Worker:
    """Return a worker with the bundled model."""
    return Worker(*d3mlx.load())


@pytest.fixture(scope="module")
def origin(worker: Worker) -> Iterator[str]:
    """Yield the origin of a server with the bundled model."""
    with serving(create_app(worker, Settings("embedded", Defaults("selective", {}, Sampling(), None)))) as origin:
        yield origin


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    """Yield Chromium."""
    if not (CHROMIUM.exists() and DRIVER.exists()):
        pytest.skip("needs the Debian packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def page(driver: Any, origin: str) -> Browser:
    """Return the page of the server."""
    return Browser(driver, origin)


def test_a_conversation_resolves_from_masks(page: Browser) -> None:
    page.wait(lambda: page.driver.title == "embedded · d3mlx")
    assert page.ask(QUESTION) == ANSWER
    states = page.run("return states")
    masks = [sum(text.count(mask) for mask in "░·") for text, *_ in states]
    assert masks[0] > 10 and masks[-1] == 0
    assert all(tokens and blocks for text, tokens, blocks in states if set("░·") & set(text))
    assert states[-1] == [ANSWER, 0, 0]
    assert page.run("return spoken") == [f"Answer: {ANSWER}"]
    figures = page.get(".figures").text
    assert figures.startswith("20 tokens · 3 forwards · 6.7 tokens/forward · 128 rows · 6.4 rows/token · ")

    page.get("#question").send_keys("First line", Keys.SHIFT, Keys.ENTER, Keys.NULL, "second line")
    assert page.get("#question").get_property("value") == "First line\nsecond line"
    assert len(page.all(".turn")) == 1
    page.get("#question").send_keys(Keys.ENTER)
    page.wait(lambda: len(page.all("[aria-busy=false]")) == 2)
    assert page.get("#question").get_property("value") == ""

    page.read_requests()
    first, second = page.bodies
    assert first["stream"] and first["diffusing"] and first["stream_options"] == {"include_usage": True}
    assert "max_tokens" not in first and "decoder" not in first
    assert [(message["role"], message["content"]) for message in second["messages"]] == [
        ("user", QUESTION),
        ("assistant", ANSWER),
        ("user", "First line\nsecond line"),
    ]
    assert {url for url in page.urls if not url.startswith(("data:", f"{page.origin}/"))} == set()
    assert page.logged() == []


def test_stop_cancels_the_work_and_keeps_the_readable_text(page: Browser, worker: Worker) -> None:
    page.get("summary").click()
    page.get("#decoder").send_keys("vanilla")
    page.get("#tokens").send_keys("128")
    page.get("#temperature").send_keys("0.1")
    page.get("#question").send_keys(LONG_QUESTION, Keys.ENTER)
    page.wait(lambda: page.all(".mask"))
    assert page.all("#send") == []
    page.get("#stop").click()
    page.wait(lambda: page.all(".notice"))
    page.wait(lambda: not worker.running)
    assert page.get(".notice").text == "Stopped."
    assert not set("░·") & set(page.run("return document.querySelector('.answer').textContent"))
    assert page.driver.switch_to.active_element.get_attribute("id") == "question"
    page.read_requests()
    sent = {name: page.bodies[0][name] for name in ("decoder", "max_tokens", "temperature")}
    assert sent == {"decoder": "vanilla", "max_tokens": 128, "temperature": 0.1}

    page.get("#restart").click()
    assert page.all(".turn") == [] and page.all("#welcome")
    page.get("#decoder").clear()
    page.get("#tokens").clear()
    assert page.ask(QUESTION) == ANSWER
    page.read_requests()
    assert [message["content"] for message in page.bodies[-1]["messages"]] == [QUESTION]
    assert page.logged() == []


def test_both_themes_have_enough_contrast(page: Browser) -> None:
    page.ask(QUESTION)
    page.get("summary").click()
    # Every state that a text can have: masks, new tokens of all colors and ages, a notice, an error.
    page.run("""
        const cells = Array.from({length: 24}, (_, i) => ["word", i / 8, i % 4]);
        const turn = new Turn("Question");
        turn.show({cells: [...cells, [3, true], [3, false]], blocks: [[0, 8, 4, false]], age: 0, forwards: 4, rows: 9,
                   tokens_per_forward: 1, rows_per_token: 1, seconds: 1});
        turn.note("A note");
        new Turn("Question").fail("An error");
        byId("welcome").hidden = false;
        const style = document.createElement("style");
        style.textContent = "* { transition: none !important }";
        document.head.append(style);
    """)
    backgrounds = []
    for scheme in ("light", "dark"):
        page.media(scheme)
        for _ in range(2):
            assert page.run(FAINT) == []
            backgrounds.append(page.run("return getComputedStyle(document.body).backgroundColor"))
            page.get("#theme").click()
        page.run("localStorage.clear(); showTheme('')")
    light, dark = backgrounds[:2]
    assert light != dark and backgrounds == [light, dark, dark, light]


def test_a_narrow_page_fits_and_calm_readers_get_few_changes(page: Browser) -> None:
    page.media(motion="reduce")
    page.narrow(320, 560)
    page.get("summary").click()
    assert page.ask(QUESTION) == ANSWER
    # Only the conversation scrolls, however long it is.
    page.run("for (let i = 0; i < 30; i++) new Turn('A question\\nof two lines').note('A note');")
    page.wait(lambda: page.run("const list = byId('conversation'); return list.scrollHeight > 3 * list.clientHeight"))
    assert page.run("return [document.documentElement.scrollWidth, document.documentElement.scrollHeight]") == [
        320,
        560,
    ]
    assert len(page.run("return states")) <= 4


class Script:
    """A server whose replies are given: a status and an error, or the bytes of a stream, sent one at a time."""

    def __init__(self) -> None:
        self.replies: list[tuple[int, str] | bytes] = []
        self.keys: list[str] = []
        self.app = FastAPI()
        self.app.add_api_route("/v1/models", lambda: {"data": [{"id": "scripted"}]}, response_model=None)
        self.app.add_api_route("/v1/chat/completions", self.answer, methods=["POST"], response_model=None)

    async def answer(self) -> Response:
        """Return the next reply."""
        reply = self.replies.pop(0)
        if isinstance(reply, tuple):
            status, sentence = reply
            return JSONResponse({"error": {"message": sentence}}, status)

        async def parts() -> AsyncIterator[bytes]:
            for byte in reply:
                yield bytes([byte])
                await asyncio.sleep(0.001)

        return StreamingResponse(parts(), media_type="text/event-stream")


def chunk(content: str, finish_reason: str | None = None) -> str:
    """Return the event of a chunk without a picture."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}
    return f"data: {json.dumps({'choices': [choice]}, ensure_ascii=False)}"


def test_errors_are_sentences_and_streams_may_be_split_anywhere(driver: Any) -> None:
    script = Script()
    hostile = "<img src=x onerror=alert(1)>\n  naïve 文字 🧪"
    lines = [": keep-alive", chunk("░"), ": keep-alive", chunk(hostile, "length"), "data: [DONE]", ""]
    script.replies = [
        (503, "The server has too many requests. Try again later."),
        (401, "The API key is missing or wrong."),
        (chunk("Half ░") + '\n\ndata: {"error": {"message": "The worker failed."}}\n\n').encode(),
        chunk("Half ░").encode() + b"\n\n",
        *(end.join(lines).encode() for end in ("\n\n", "\r\n\r\n")),
    ]
    with serving(script.app) as origin:
        page = Browser(driver, origin)
        sentences = [
            "The server has too many requests. Try again later.",
            "The server needs a correct API key: enter it under Settings.",
            "The worker failed.",
            "The connection ended before the answer was complete.",
        ]
        page.get("#question").send_keys("Question", Keys.ENTER)
        for sentence in sentences:
            page.wait(lambda: page.all(".notice"))
            assert page.get(".notice").text == sentence
            page.get(".failed button").click()
        page.wait(lambda: page.all(".notice"))
        assert page.get("#key")
        assert page.get(".answer").get_property("textContent") == hostile
        assert page.get(".notice").text == "The answer reached the maximum number of tokens."
        page.ask("Again", answers=2)
        assert page.all(".answer")[1].get_property("textContent") == hostile
        assert page.all("img") == []
        page.read_requests()
        assert [len(body["messages"]) for body in page.bodies] == [1, 1, 1, 1, 1, 3]
        statuses = [line for line in page.logged() if "503" not in line and "401" not in line]
        assert statuses == []
    page.get("#question").send_keys("Is it there?", Keys.ENTER)
    page.wait(lambda: page.all(".failed"))
    assert page.all(".notice")[-1].text.startswith("The connection to the server failed")
