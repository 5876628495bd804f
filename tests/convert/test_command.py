"""Tests of the command line of the converter, and of uploads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from huggingface_hub.errors import LocalTokenNotFoundError

from d3mlx.checkpoints.checkpoint import open_checkpoint
from d3mlx.convert import convert
from d3mlx.convert.card import check_login, upload
from d3mlx.errors import CheckpointError, ConfigError


def test_the_command_line(sources: dict[str, Path], tmp_path: Path) -> None:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("d3mlx")), "convert", "--hf-path", str(sources["llada"])]
        return subprocess.run(
            [*command, "--mlx-path", str(tmp_path / "out"), *arguments], capture_output=True, text=True
        )

    done = call("--q-bits", "8")
    assert (done.returncode, done.stdout) == (1, "") and "need --quantize" in done.stderr
    assert call("--max-shard-size", "5").returncode == 2
    done = call("-q", "--q-bits", "8", "--max-shard-size", "1MB")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith(f"Wrote {tmp_path / 'out'}: ") and "bits per weight" in done.stdout
    assert open_checkpoint(tmp_path / "out").quantization == {"bits": 8, "group_size": 64, "mode": "affine"}
    assert "--model out" in (tmp_path / "out" / "README.md").read_text()
    done = call()
    assert done.returncode == 1 and "already exists" in done.stderr


def test_upload(sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = MagicMock()
    monkeypatch.setattr("d3mlx.convert.card.HfApi", lambda: api)
    (sources["llada"] / "README.md").write_text("---\nlicense: mit\ntags: [text]\n---\n# Original\n")
    folder = convert(sources["llada"], tmp_path / "out", name="me/llada").folder
    card = (folder / "README.md").read_text()
    assert "license: mit" in card and "library_name: mlx" in card and "--model me/llada" in card
    api.create_repo.return_value = "https://huggingface.co/me/llada"
    assert upload(folder, "me/llada") == "https://huggingface.co/me/llada"
    assert api.upload_folder.call_args.kwargs["folder_path"] == folder
    api.upload_folder.side_effect = RuntimeError("quota\nmore")
    with pytest.raises(CheckpointError, match=r"is in .*out, but the upload to me/llada failed: quota"):
        upload(folder, "me/llada")
    api.whoami.side_effect = LocalTokenNotFoundError("no token")
    with pytest.raises(ConfigError, match="hf auth login"):
        check_login("me/llada")
