"""Tests of programs of models: extraction from text, and running in the sandbox."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from d3mlx.errors import ConfigError
from d3mlx.evaluate.programs import fenced, longest_program, names_in, needed, sanitized
from d3mlx.evaluate.sandbox import Limits, Sandbox


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox("humaneval", True, Limits(cpu_seconds=1, memory=1 << 29, seconds=60))


def test_the_sandbox_must_be_allowed() -> None:
    with pytest.raises(ConfigError, match="--allow-code-execution"):
        Sandbox("humaneval", False)


PASSING = [
    "import math, re, heapq, collections, itertools\nassert math.gcd(4, 6) == 2",
    "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: 'int'\nassert A(1) == A(1)",
    "if __name__ == '__main__':\n    raise ValueError",
    "open('mine.txt', 'w').write('x')\nimport os\nos.remove('mine.txt')",
    "assert 'é' == '\\u00e9'",
]


@pytest.mark.parametrize("program", PASSING)
def test_programs_that_pass(sandbox: Sandbox, program: str) -> None:
    assert sandbox.run(program).why is None
    assert sandbox.run(program).passed


FAILING = [
    ("assert 1 == 2", "AssertionError"),
    ("def f(:", "SyntaxError"),
    ("import sys\nsys.exit(0)", "SystemExit"),
    ("import os\nos._exit(0)", "ended by itself"),
    ("while True: pass", "CPU time"),
    ("import socket\nsocket.socket()", "socket.__new__ is not allowed"),
    ("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:1')", "not allowed"),
    ("import subprocess\nsubprocess.run(['true'])", "not allowed"),
    ("import os\nos.system('true')", "not allowed"),
    ("import os\nos.fork()", "not allowed"),
    ("import os\nos.kill(os.getppid(), 9)", "not allowed"),
    ("import ctypes\nctypes.CDLL(None)", "not allowed"),
    ("open('large', 'wb').write(bytes(1 << 21))", ""),
    ("input()", "EOFError"),
]


@pytest.mark.parametrize(("program", "why"), FAILING, ids=lambda text: text.split("\n")[-1][:30])
def test_programs_that_fail(sandbox: Sandbox, program: str, why: str) -> None:
    outcome = sandbox.run(program)
    assert not outcome.passed
    assert why in (outcome.why or "")


def test_the_time_of_sleeping_programs_is_limited() -> None:
    sandbox = Sandbox("humaneval", True)
    sandbox.limits = Limits(seconds=1.5)
    assert sandbox.run("import time\ntime.sleep(60)").why == "stopped after 1.5 s"


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not enforce the limit")
def test_memory_is_limited(sandbox: Sandbox) -> None:
    assert "MemoryError" in (sandbox.run("x = bytearray(1 << 30)").why or "")


def test_files_in_other_folders_cannot_be_changed(sandbox: Sandbox, tmp_path: Path) -> None:
    target = tmp_path / "other.txt"
    target.write_text("content")
    where = repr(str(target))
    for action in (
        f"open({where}, 'w')",
        f"import os; os.remove({where})",
        f"import os; open('mine', 'w').close(); os.replace('mine', {where})",
        f"import shutil; shutil.copyfile(__import__('os').devnull, {where})",
        f"import pathlib; pathlib.Path({where}).write_text('')",
    ):
        assert "not allowed" in (sandbox.run(action).why or "")
    assert target.read_text() == "content"


def test_programs_do_not_get_environment_variables(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert sandbox.run("import os\nassert 'HF_TOKEN' not in os.environ").passed


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
def test_all_descriptors_are_closed(sandbox: Sandbox) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    sandbox.run("open('a', 'w')")
    assert set(Path("/proc/self/fd").iterdir()) == before


ANSWER = """Okay! Here it is:
```python
import math

LIMIT = 3

def helper(x):
    return x + LIMIT

def unused():
    return 0

def solve(x):
    return helper(x)

print(solve(1))
```
It adds three. ```python
def solve(x): return None
```"""


def test_the_solution_is_extracted_from_the_text() -> None:
    program = sanitized(fenced(ANSWER), ["solve"])
    assert "import math" in program
    assert "LIMIT = 3" in program
    assert "def helper" in program
    assert "unused" not in program
    assert "print" not in program
    space: dict[str, object] = {}
    exec(program, space)
    assert space["solve"](1) == 4  # type: ignore[operator]


def test_text_without_a_program() -> None:
    assert sanitized("This is the answer!", ["f"]) == ""
    assert fenced("no fence") == "no fence"
    assert fenced("```python\ndef f(): pass") == "def f(): pass"
    assert longest_program("def f():\n    return 1\nand that is all") == "def f():\n    return 1"
    assert "g" in needed("def g(): return 1", ["absent"])


def test_names_in_tests() -> None:
    assert {"add", "sorted"} <= names_in(["assert sorted(add(1, 2)) == [3]", "assert ("])
