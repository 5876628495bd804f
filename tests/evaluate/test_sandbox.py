"""Tests of programs of models: extraction from text, and running in the sandbox."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from d3mlx.errors import ConfigError
from d3mlx.evaluate.programs import fenced, longest_program, names_in, needed, sanitized
from d3mlx.evaluate.sandbox import CONFINED, Limits, Sandbox
from tests.evaluate.hostile import programs

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox("humaneval", True, Limits(cpu_seconds=1, memory=1 << 29, seconds=60))


def test_the_sandbox_must_be_allowed() -> None:
    with pytest.raises(ConfigError, match="--allow-code-execution"):
        Sandbox("humaneval", False)


def outcomes(python: str, folder: Path, user: str | None = None) -> dict[str, Any]:
    """Return the outcomes and the effects of all programs in `programs`, run by a user."""
    done = subprocess.run(
        [python, "-B", "-m", "tests.evaluate.hostile", str(folder)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        user=user,
        group=user and pwd.getpwnam(user).pw_gid,
        extra_groups=[] if user else None,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_honest_programs_pass_and_hostile_ones_have_no_effect(user: str | None, python: str, tmp_folder: Path) -> None:
    found = outcomes(python, tmp_folder, user)
    assert found["effects"] == []
    reasons = found["reasons"]
    assert {name: reasons[name] for name in programs("honest") if reasons[name] is not None} == {}
    for name, (_, why) in programs("hostile").items():
        assert reasons[name] is not None, name
        assert why in reasons[name], name


@pytest.fixture(params=["this user", "ordinary user"])
def user(request: pytest.FixtureRequest) -> str | None:
    """Return the user who runs the programs. None is the user of the tests."""
    if request.param == "this user":
        return None
    if os.geteuid() != 0:
        pytest.skip("this user is an ordinary user")
    return "nobody"


@pytest.fixture
def python(user: str | None) -> str:
    """Return an interpreter that the user can run."""
    if user is None:
        return sys.executable
    for python in (sys.executable, "/usr/bin/python3"):
        command = [python, "-c", "import sys, d3mlx.evaluate.sandbox; sys.exit(sys.version_info < (3, 11))"]
        with contextlib.suppress(OSError):
            if subprocess.run(command, cwd=ROOT, user=user, capture_output=True).returncode == 0:
                return python
    pytest.skip("an ordinary user cannot run Python here")


@pytest.fixture
def tmp_folder(user: str | None) -> Iterator[Path]:
    """Yield a temporary folder of the user. Other users cannot enter the folders of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        if user:
            shutil.chown(folder, user)
        yield Path(folder)


def test_endless_programs_end(sandbox: Sandbox) -> None:
    assert sandbox.run("while True: pass").why == "stopped after 1 s of CPU time"


def test_the_time_of_sleeping_programs_is_limited() -> None:
    sandbox = Sandbox("humaneval", True)
    sandbox.limits = Limits(seconds=1.5)
    assert sandbox.run("import time\ntime.sleep(60)").why == "stopped after 1.5 s"


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not enforce the limit")
def test_memory_is_limited(sandbox: Sandbox) -> None:
    assert "MemoryError" in (sandbox.run("x = bytearray(1 << 30)").why or "")


PARENT = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from d3mlx.evaluate.sandbox import Limits, Sandbox
Sandbox("mbpp", True, Limits(seconds=600)).run(sys.argv[2])
"""


@pytest.mark.parametrize("victim", ["parent", "child"])
def test_a_killed_process_leaves_no_program_and_no_folder(victim: str, tmp_path: Path) -> None:
    program = (
        "import os, time\nopen('new', 'w').write(f'{os.getpid()} {os.getppid()}')\n"
        "os.rename('new', 'ids')\ntime.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), program])
    wait_until(lambda: list(tmp_path.glob("d3mlx-*/ids")))
    process, child = map(int, next(tmp_path.glob("d3mlx-*/ids")).read_text().split())
    os.kill(parent.pid if victim == "parent" else child, signal.SIGKILL)
    assert parent.wait(60) == (-signal.SIGKILL if victim == "parent" else 0)
    wait_until(lambda: not list(tmp_path.iterdir()) and not runs(process))


def wait_until(is_so: Callable[[], object]) -> None:
    """Wait until a condition is true."""
    for _ in range(600):
        if is_so():
            return
        time.sleep(0.05)
    raise AssertionError("waited too long")


def runs(process: int) -> bool:
    """Return whether a process runs. One that ended may still have its number, until its parent has read its status."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True).stdout
    return bool(state.strip()) and not state.startswith("Z")


UNGUARDED = """
import os, socket, sys, threading
sys.path.insert(0, sys.argv[1])
import sandbox_linux
outside = os.open("/", os.O_RDONLY)
os.chdir(sys.argv[2])
sandbox_linux.confine(sys.argv[2], os.getppid())
there = sys.argv[3]
actions = {
    "write": lambda: open(there + "/target", "a"),
    "create": lambda: open(there + "/new", "w"),
    "create at a descriptor": lambda: os.open(there[1:] + "/new", os.O_CREAT | os.O_WRONLY, dir_fd=outside),
    "delete": lambda: os.remove(there + "/target"),
    "rename": lambda: os.rename(there + "/target", "mine"),
    "shorten": lambda: os.truncate(there + "/target", 0),
    "pipe": lambda: os.mkfifo("pipe"),
    "pipe outside": lambda: os.mkfifo(there + "/pipe"),
    "link": lambda: os.symlink("/", "link"),
    "mode": lambda: os.chmod(there + "/target", 0),
    "shared memory": lambda: open("/dev/shm/d3mlx-bait", "w"),
    "socket": lambda: socket.socketpair(),
    "fork": lambda: os.fork() or os._exit(0),
    "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "kill": lambda: os.kill(os.getppid(), 0),
    "limit": lambda: __import__("resource").setrlimit(0, (1, 1)),
}
for name, action in actions.items():
    try:
        action()
    except (OSError, ValueError):
        continue
    print(name)
open("own", "w").write("x")
os.remove("own")
open("/dev/null", "w").write("x")
threading.Thread(target=print, args=["thread"]).start()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux")
def test_the_kernel_refuses_what_native_code_tries(tmp_path: Path) -> None:
    version = ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)
    if version < 6 or os.uname().machine not in ("x86_64", "aarch64"):
        pytest.skip("this kernel has no new Landlock, or the filter does not know this processor")
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "target").write_text("content")
    command = [sys.executable, "-c", UNGUARDED, str(CONFINED.parent), str(inside), str(outside)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("thread\n", "")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inside", "outside", "target"]


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
