"""`d3mlx infill` and `d3mlx generate --suffix` through the real entry point."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import COMMAND
from tests.cli.tmux import Tmux, needs_tmux
from tests.examples import ANSWER, BEGINNING, ENDING, EQUATION, QUESTION

TEXT = f"{BEGINNING} [MASK:8]{ENDING}\r\nIt is 36, not \\[MASK].\r\n"
FILLED = f"{ANSWER}\r\nIt is 36, not [MASK].\r\n"
IN_PLACE = FILLED.replace("[MASK]", "\\[MASK]").encode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT.encode())
    path.chmod(0o750)
    return path


def test_the_finished_text_is_written(d3mlx: Any, file: Path) -> None:
    status, out, err = d3mlx("infill", str(file), "--question", QUESTION)
    assert (status, out) == (0, FILLED)
    assert err.splitlines()[-1].startswith("Denoising: ")
    assert file.read_bytes() == TEXT.encode()


@pytest.mark.parametrize("mark", ["[MASK:8]", "[MASK]", "[MASK:60]"])
def test_standard_input_is_filled(d3mlx: Any, monkeypatch: pytest.MonkeyPatch, mark: str) -> None:
    """The bundled model ends the text of a hole that is too long."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{BEGINNING} {mark}{ENDING}".encode())))
    assert d3mlx("infill", "-", "-q", QUESTION).out == ANSWER


def test_json_has_every_step_and_every_hole(d3mlx: Any, file: Path) -> None:
    file.write_text(f"{BEGINNING} [MASK:8]{ENDING.split('The')[0]}[MASK:2] answer [MASK].")
    status, out, _ = d3mlx("infill", str(file), "-q", QUESTION, "--json")
    *steps, result = map(json.loads, out.splitlines())
    assert status == 0
    assert "".join(step["text"] for step in steps) == result["text"]
    assert [step["step"] for step in steps] == list(range(result["stats"]["forwards"]))
    assert result["fills"][0]["text"] == EQUATION
    assert [len(sizes) for sizes in result["rounds"]] == [3] * (steps[-1]["round"] + 1)
    assert result["config"]["max_tokens"] == 64


def test_a_file_is_replaced_and_keeps_its_permissions(d3mlx: Any, file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to(file)
    status, out, _ = d3mlx("infill", str(link), "-q", QUESTION, "--in-place")
    # Escaped marks stay escaped, so a second run does not fill them.
    assert (status, out, file.read_bytes()) == (0, "", IN_PLACE)
    assert "has no hole" in d3mlx("infill", str(link), "-i").err
    assert (link.is_symlink(), file.stat().st_mode & 0o777) == (True, 0o750)
    assert sorted(path.name for path in file.parent.iterdir()) == ["link", "text.txt"]


def test_a_file_that_changes_meanwhile_is_not_written(d3mlx: Any, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d3mlx.cli.infill.follow", lambda *_: file.write_text("other"))
    status, _, err = d3mlx("infill", str(file), "-q", QUESTION, "-i")
    assert (status, file.read_text()) == (1, "other")
    assert err.splitlines()[-1] == (
        f"Error: {file} has changed while its holes were filled. It was not written. Run the command again."
    )


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (b"no hole", [], r"The text has no hole. Write [MASK] where text is missing."),
        (b"a [MASK:x] b", [], "[MASK:x] is not a hole."),
        (b"\xff[MASK]", [], "is not UTF-8 text. Give a text file."),
        (b"[MASK:400] b [MASK:400]", [], "exceed this model's context of 640."),
        (b"a [MASK] b", ["--max-tokens", "0"], "max-tokens must be from 1 to 1,048,576, not 0."),
        (b"a [MASK] b", ["--yes"], "--yes needs --in-place."),
        (b"a [MASK] b", ["--in-place", "--json"], "Give --in-place or --json, not both."),
        (b"a [MASK] b", ["--decoder", "sdar"], "block-causal"),
        (None, [], "does not exist."),
    ],
)
def test_mistakes_are_one_sentence(
    d3mlx: Any, file: Path, content: bytes | None, arguments: list[str], message: str
) -> None:
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    status, out, err = d3mlx("infill", str(file), *arguments)
    last = err.splitlines()[-1]
    assert (status, out, last.startswith("Error: "), message in last) == (1, "", True, True), err
    assert content is None or file.read_bytes() == content


def test_generate_takes_a_suffix(d3mlx: Any) -> None:
    prompt, suffix = f"{QUESTION} {BEGINNING}", ENDING
    status, out, _ = d3mlx("generate", prompt, "--suffix", suffix)
    assert (status, out) == (0, f" {EQUATION}\n")
    *_, last = d3mlx("generate", prompt, "--suffix", suffix, "--json").out.splitlines()
    result = json.loads(last)
    assert (result["text"], result["config"]["suffix"], result["config"]["prompt"]) == (f" {EQUATION}", suffix, prompt)
    status, _, err = d3mlx("generate", prompt, "--suffix", suffix, "--system", "x")
    assert (status, "--system-prompt needs the chat template" in err) == (1, True)
    # An editor at the end of a file sends an empty suffix: the text goes on.
    status, out, _ = d3mlx("generate", prompt, "--suffix", "")
    assert (status, out) == d3mlx("generate", prompt, "--raw")[:2]


def test_a_hole_that_may_be_cut_is_named(d3mlx: Any, file: Path) -> None:
    file.write_text("The [MASK:2] have [MASK] apples. The answer is 36.")
    status, out, err = d3mlx("infill", str(file), "-q", QUESTION, "--max-tokens", "4")
    assert (status, out.endswith(" apples. The answer is 36.")) == (0, True)
    assert err.splitlines()[-1] == "Hole 2 has no end within 4 tokens. Its text may be cut."


@needs_tmux
def test_a_terminal_leaves_text_to_copy(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(f"  {BEGINNING} [MASK:8]{ENDING}")
    with Tmux(tmp_path, f"{COMMAND} infill {tmp_path / 'text.txt'} -q '{QUESTION}'") as screen:
        lines = screen.wait_for("exit status 0").splitlines()
    assert f"  {ANSWER}" in [line.rstrip() for line in lines]


@needs_tmux
def test_a_terminal_shows_the_changed_lines_and_asks(file: Path, tmp_path: Path) -> None:
    with Tmux(tmp_path, f"{COMMAND} infill {file} -i -q '{QUESTION}'") as screen:
        shown = screen.wait_for("[y/N]")
        assert f"-{BEGINNING} [MASK:8]{ENDING}" in shown
        assert f"+{ANSWER}" in shown
        screen.type("Enter")
        screen.wait_for("is unchanged.")
    assert file.read_bytes() == TEXT.encode()
    with Tmux(tmp_path, f"{COMMAND} infill {file} -i -q '{QUESTION}'") as screen:
        screen.wait_for("[y/N]")
        screen.type("y", "Enter")
        screen.wait_for("exit status 0")
    assert file.read_bytes() == IN_PLACE
