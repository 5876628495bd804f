"""The wheel has the correct files, and the type check covers the complete package."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.check_types import ROOT, check, stage


def test_the_type_check_covers_the_folders_of_the_root(tmp_path: Path) -> None:
    package = stage(tmp_path)
    with (package / "cli" / "info.py").open("a") as file:
        file.write('\nplanted: int = "not a number"\n')
    done = check(tmp_path)
    assert done.returncode == 1
    assert "cli/info.py" in done.stdout
    assert done.stdout.count("error:") == 1


def test_the_wheel_installs_one_top_level_package(tmp_path: Path) -> None:
    # Build from a copy, because building leaves a build folder in the source.
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, names):
        if name.startswith("tests/") or not (ROOT / name).exists():
            continue
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(tmp_path), "./source"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    files = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in files} - {"d3mlx"} == {wheel.name.split("-py3")[0] + ".dist-info"}
    assert not any("research" in name for name in files)
    for needed in (
        "cli/main.py",
        "kernels/token_stats.py",
        "convert/__init__.py",
        "py.typed",
        "models/llada.py",
        "evaluate/tasks/math.py",
        "server/page.html",
        "replay.html",
        "llm_plugin.py",
    ):
        assert f"d3mlx/{needed}" in files
    for needed in ("config.json", "model.safetensors", "tokenizer.json", "README.md"):
        assert f"d3mlx/data/embedded/{needed}" in files
