"""Twenty seconds of the fuzz script with a fixed seed."""

from __future__ import annotations

import re
import subprocess
import sys


def test_damage_ends_in_one_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--seconds", "20"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout
    counted = re.search(r"\b(\d+) with exit status 1\b", done.stdout)
    assert counted is not None and int(counted[1]) >= 5, done.stdout
