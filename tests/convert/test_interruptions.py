"""Interrupted conversions leave no incomplete folder. Conversions need little memory."""

from __future__ import annotations

import multiprocessing
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from d3mlx.cli.main import run
from d3mlx.convert import Quantization, Recipe, convert
from tests.convert.folders import same, weights
from tests.convert.synthetic import config_of, peak_of, peak_of_convert, write_synthetic


def convert_with_little_room(source: Path, target: Path) -> None:
    """Convert with files limited to 30 kB, which looks like a disk that becomes full during the run."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
    sys.argv = ["d3mlx", "convert", "--hf-path", str(source), "--mlx-path", str(target)]
    run()


def convert_quantized(source: Path, target: Path) -> None:
    """Convert with 4 bits and small files."""
    convert(source, target, Recipe(Quantization()), max_shard_bytes=2_000_000)


FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["d3mlx.convert", "tests.convert.test_interruptions", "transformers"])


def test_a_full_disk_leaves_no_files(sources: dict[str, Path], tmp_path: Path) -> None:
    process = FORK.Process(target=convert_with_little_room, args=(sources["llada"], tmp_path / "out"))
    process.start()
    process.join()
    assert process.exitcode == 1
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_leaves_no_incomplete_target(tmp_path: Path) -> None:
    """After SIGKILL at 24 random times there is at most a hidden folder, and the next run succeeds."""
    source, folder = tmp_path / "source", tmp_path / "folder"
    write_synthetic(source, config_of(layers=6, width=512, vocab=2048), 10**7)
    folder.mkdir()
    for name in ("first", "complete"):
        began = time.perf_counter()
        process = FORK.Process(target=convert_quantized, args=(source, folder / name))
        process.start()
        process.join()
        seconds = time.perf_counter() - began
        assert process.exitcode == 0
    shutil.rmtree(folder / "first")
    draw = random.Random(0)
    killed, partial = 0, 0
    for _ in range(24):
        process = FORK.Process(target=convert_quantized, args=(source, folder / "out"))
        began = time.perf_counter()
        process.start()
        process.join(draw.uniform(0, seconds))
        if process.exitcode == 0:
            # The first measurement may have been slow because of other processes.
            seconds = min(seconds, time.perf_counter() - began)
        process.kill()
        process.join()
        names = {path.name for path in folder.iterdir()} - {"complete"}
        killed += process.exitcode != 0
        partial += ".out.partial" in names
        assert len(names) <= 1
        if "out" in names:
            assert same(weights(folder / "out"), weights(folder / "complete"))
            shutil.rmtree(folder / "out")
    assert killed >= 10 and partial >= 5
    (folder / ".out.partial").mkdir(exist_ok=True)
    (folder / ".out.partial" / "model-00009-of-00009.safetensors").write_bytes(b"half")
    convert_quantized(source, folder / "out")
    assert {path.name for path in folder.iterdir()} == {"complete", "out"}
    assert same(weights(folder / "out"), weights(folder / "complete"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_runs_clean_up(number: int, tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_synthetic(source, config_of(layers=12, width=1024, vocab=4096), 10**8)
    command = [str(Path(sys.executable).with_name("d3mlx")), "convert", "--hf-path", str(source), "--dtype", "float32"]
    process = subprocess.Popen([*command, "--mlx-path", str(tmp_path / "out")], stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob(".out.partial/*")):
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(number)
    _, err = process.communicate()
    assert (process.returncode, err) == (128 + number, "Interrupted.\n" if number == signal.SIGINT else "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_memory_stays_within_three_tensors_and_a_shard(tmp_path: Path) -> None:
    """The checkpoint is several times larger than the memory limit of its conversion."""
    source = tmp_path / "source"
    largest = write_synthetic(source, config_of(layers=6, width=1024, vocab=16384), 10**8)
    idle = peak_of("info", str(source))
    shard = 16
    for options in (["-q"], ["--dtype", "float16"], ["-q", "--q-mode", "nvfp4"]):
        peak = peak_of_convert(source, tmp_path / "out", *options, "--max-shard-size", f"{shard}MB")
        # The margin is for modules that the converter imports and `info` does not.
        assert peak - idle < 3 * largest + max(shard * 10**6, largest) + 40_000_000, options
        shutil.rmtree(tmp_path / "out")
