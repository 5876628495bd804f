"""Runs the programs in `programs`: honest ones, and ones that try to pass by deceit or to have an effect outside.

    python -m tests.evaluate.hostile FOLDER

runs all of them and prints the outcomes and the effects as JSON. It needs only the standard library, so that a test can
run it as another user. The head of a program is `# name`, or `# name -> a part of the reason why it fails`.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from d3mlx.evaluate.sandbox import Limits, Sandbox

PROGRAMS = Path(__file__).with_name("programs")
BEGINNING = """import os
BAIT, TARGET = {bait!r}, {target!r}
def tell(text):
    for number in range(64):
        try:
            os.write(number, text)
        except OSError:
            pass
"""


def programs(kind: str) -> dict[str, tuple[str, str]]:
    """Return the programs of a kind by name, each with a part of the reason why it fails."""
    parts = re.split(r"^# (.+?)(?: -> (.+))?\n", (PROGRAMS / f"{kind}.txt").read_text(encoding="utf-8"), flags=re.M)[1:]
    return {name: (source, why or "") for name, why, source in zip(parts[::3], parts[1::3], parts[2::3], strict=True)}


def state(bait: Path) -> dict[str, object]:
    """Return everything that a hostile program tries to change."""
    places = {str(path): path.lstat() for path in sorted([bait, *bait.rglob("*")])}
    found: dict[str, object] = {name: (info.st_mode, info.st_mtime_ns, info.st_uid) for name, info in places.items()}
    found["content"] = (bait / "target").read_text()
    found["attributes"] = os.listxattr(bait / "target") if sys.platform == "linux" else []
    found["shared memory"] = [path.name for path in Path("/dev/shm").glob("*d3mlx-bait*")]
    found["priority"] = os.getpriority(os.PRIO_PROCESS, 0)
    return found


def main() -> None:
    """Run all programs and print the outcomes as JSON: per name of a program null or the reason, and the effects."""
    folder = Path(sys.argv[1])
    tempfile.tempdir = str(folder)
    bait = folder / "bait"
    (bait / "empty").mkdir(parents=True)
    (bait / "target").write_text("content")
    before = state(bait)
    beginning = BEGINNING.format(bait=str(bait), target=str(bait / "target"))
    sandbox = Sandbox("mbpp", True, Limits(cpu_seconds=1, memory=1 << 29, seconds=60))
    both = programs("honest") | programs("hostile")
    with ThreadPoolExecutor(2) as pool:
        outcomes = pool.map(lambda program: sandbox.run(beginning + program[0]).why, both.values())
        reasons = dict(zip(both, outcomes, strict=True))
    after = state(bait)
    effects = sorted(name for name in before | after if before.get(name) != after.get(name))
    effects += [path.name for path in folder.iterdir() if path != bait]
    json.dump({"reasons": reasons, "effects": effects}, sys.stdout)


if __name__ == "__main__":
    main()
