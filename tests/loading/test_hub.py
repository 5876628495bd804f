"""Downloads from a small hub on this machine: their order, the cache, and each failure."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants, snapshot_download
from huggingface_hub.utils import close_session, logging

from d3mlx import load
from d3mlx.bench.cost import cost
from d3mlx.checkpoints import hub as client
from d3mlx.checkpoints.checkpoint import open_checkpoint
from d3mlx.checkpoints.hub import fetch
from d3mlx.checkpoints.loader import lazy_model
from d3mlx.cli.bench import ModelSource, predict_forwards
from d3mlx.cli.info import describe
from d3mlx.convert import convert
from d3mlx.errors import CheckpointError, MemoryLimitError
from tests.builders import write_json, write_llada
from tests.loopback import COMMIT, Hub, environment, running

WHOLE = r"model.*\.safetensors$"
"""Paths of requests for a weight file from its start to its end."""

MLX_LM = ["*.json", "model*.safetensors", "*.py", "tokenizer.model", "*.tiktoken", "*.txt", "*.jsonl", "*.jinja"]
"""Files of a repository that mlx-lm downloads."""


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with three weight files, each larger than the first request."""
    folder = write_llada(tmp_path_factory.mktemp("repo"), shards=3, d_model=256, mlp_hidden_size=512)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Original\n")
    return folder


@pytest.fixture
def hub(repo: Path) -> Iterator[Hub]:
    with running(Hub({"org/llada": repo})) as started:
        yield started


@pytest.fixture
def here(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Return a hub that this process also uses, with an empty cache."""
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    close_session()
    return hub


def d3mlx(hub: Hub, home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "d3mlx", *arguments]
    return subprocess.run(command, env=environment(hub, home) | variables, capture_output=True, text=True)


def refusal(name: str = "org/llada", revision: str | None = None) -> str:
    """Return the error that a load raises."""
    with pytest.raises(CheckpointError) as caught:
        load(name, revision=revision)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_info_downloads_no_weights(hub: Hub, repo: Path, tmp_path: Path) -> None:
    done = d3mlx(hub, tmp_path, "info", "org/llada", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    facts, expected = json.loads(done.stdout), describe(open_checkpoint(repo))
    assert facts.pop("folder") != expected.pop("folder") and facts == expected
    assert not hub.downloads(WHOLE) and len(hub.downloads(r"safetensors bytes=0-")) == 3
    assert not hub.downloads("README|py$")
    assert hub.sent < 4 * client.FIRST_BYTES


def test_a_prediction_downloads_no_weights(here: Hub, repo: Path, tmp_path: Path) -> None:
    """The figures are those of the folder with its weights."""
    figures = {}
    for name in ("org/llada", str(repo)):
        predict_forwards("M4", ModelSource(name, None, None, None, "model"), 512, [1, 8], tmp_path / "figures.json")
        figures[name] = json.loads((tmp_path / "figures.json").read_text())
    assert figures["org/llada"] == figures[str(repo)]
    model: Any = lazy_model(open_checkpoint(fetch(str(repo))))
    assert figures["org/llada"]["cost"] == json.loads(json.dumps(asdict(cost(model, 512))))
    assert not here.downloads(WHOLE) and len(here.downloads(r"safetensors bytes=0-")) == 3


def test_weights_come_after_the_checks(
    here: Hub, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint that cannot run is refused before its weights are downloaded. Others are downloaded once."""
    damaged = Path(shutil.copytree(repo, tmp_path / "damaged"))
    first = damaged / "model-00001-of-00003.safetensors"
    first.write_bytes(first.read_bytes()[:-100])
    other = Path(shutil.copytree(repo, tmp_path / "other"))
    write_json(other / "config.json", json.loads((repo / "config.json").read_text()) | {"n_layers": 3})
    here.repos |= {"org/damaged": damaged, "org/other": other}
    assert "damaged file, model-00001" in refusal("org/damaged")
    assert "lacks the tensor" in refusal("org/other")
    with monkeypatch.context() as patch:
        patch.setattr("d3mlx.checkpoints.loader.memory_limit", lambda: 10)
        with pytest.raises(MemoryLimitError):
            load("org/llada")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        assert "Make room" in refusal()
    assert not here.downloads(WHOLE)
    model, _ = load("org/llada")
    assert model.family == "llada" and len(here.downloads(WHOLE)) == 3
    assert capfd.readouterr().err == ""  # no bars without a terminal
    before = len(here.requests)
    load("org/llada")
    assert here.requests[before:] == [("GET", "/api/models/org/llada/revision/main")]


def test_a_header_longer_than_the_first_request(here: Hub, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_BYTES", 100)
    assert open_checkpoint(fetch("org/llada")).tensors == open_checkpoint(repo).tensors


def test_a_cache_of_another_tool_works_offline(here: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """README.md is not needed. If a weight file is missing, the copy is called incomplete."""
    home = tmp_path / "home"
    snapshot_download("org/llada", allow_patterns=MLX_LM, cache_dir=home / "hub")
    before = len(here.requests)
    done = d3mlx(here, home, "generate", "hi", "--model", "org/llada", "--max-tokens", "4", HF_HUB_OFFLINE="1")
    assert done.returncode == 0 and "Fetching" not in done.stderr
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "org/llada is not in the cache, and HF_HUB_OFFLINE is set." in refusal()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    load("org/llada")
    (home / "hub" / "models--org--llada" / "snapshots" / COMMIT / "model-00002-of-00003.safetensors").unlink()
    assert "The copy of org/llada in the cache is incomplete, and HF_HUB_OFFLINE is set." in refusal()
    assert len(here.requests) == before


def test_a_broken_download_is_resumed(here: Hub, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a broken connection, the download continues after the last piece that the client has written."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    here.break_at = 500_000
    load("org/llada")
    assert len(here.downloads(r"safetensors bytes=[1-9]\d*-$")) == 1
    assert here.sent < 1.2 * sum(path.stat().st_size for path in repo.iterdir())


def test_complete_files_are_kept(here: Hub) -> None:
    source = fetch("org/llada")
    here.refuse, here.only = 404, "model-00002"
    with pytest.raises(CheckpointError):
        source.download()
    here.refuse = None
    source.download()
    for number in (1, 3):
        assert len(here.downloads(f"model-0000{number}.*safetensors$")) <= 2
    assert open_checkpoint(source.folder).source.headers == {}


@pytest.mark.parametrize(
    ("only", "state"),
    [("", "is not in the cache"), ("tree", "is not in the cache"), (r"\.safetensors$", "in the cache is incomplete")],
)
def test_a_hub_without_an_answer(here: Hub, only: str, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit applies to requests for which the client has no limit, and to those that it repeats."""
    monkeypatch.setattr(client, "PATIENCE", 0.5)
    here.stall, here.only = 3.0, only
    begin = time.monotonic()
    message = refusal()
    assert time.monotonic() - begin < 3.5 and state in message and "does not answer within 0.5 s" in message


def test_environment_variables_set_the_time_limit(hub: Hub, tmp_path: Path) -> None:
    hub.stall = 5.0
    code = "from d3mlx.checkpoints.hub import fetch; fetch('org/llada')"
    variables = environment(hub, tmp_path) | {"HF_HUB_ETAG_TIMEOUT": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    assert done.returncode == 1 and "does not answer within 1 s" in done.stderr


@pytest.mark.parametrize(
    ("behavior", "message"),
    [
        ({"refuse": 429, "retry_after": 60}, "limits the rate of requests (429). Wait 60 s, then try again."),
        ({"refuse": 429}, "Wait some minutes"),
        ({"refuse": 500}, "has a server error (500). Try again later."),
        ({"gated": True}, "org/llada is gated. Accept its terms"),
        ({"portal": True}, "The answer about org/llada cannot be read, so it is probably not from the Hub. Check"),
        ({"ranges": False}, "a part of model-00001-of-00003.safetensors of org/llada is not that part"),
        ({"refuse": 418}, "Check the network and HF_ENDPOINT, then try again."),
        ({"repos": {}}, "is neither a folder nor a model on the Hub that you may read"),
    ],
)
def test_each_failure_has_its_own_error(here: Hub, behavior: dict[str, Any], message: str) -> None:
    for name, value in behavior.items():
        setattr(here, name, value)
    assert message in refusal()


def test_a_file_missing_from_the_cache_is_downloaded_again(here: Hub, tmp_path: Path) -> None:
    single = write_llada(tmp_path / "single")
    here.repos |= {"org/single": single}
    load("org/single")
    blob = (fetch("org/single").folder / "model.safetensors").resolve()
    blob.unlink()
    load("org/single")
    assert blob.is_file()


def test_retries_are_not_logged() -> None:
    before = logging.get_verbosity()
    with client.hub_client("org/llada", None):
        assert logging.get_verbosity() == logging.ERROR
    assert logging.get_verbosity() == before


def test_other_failures(here: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "org/llada has no revision 'draft' on the Hub." in refusal(revision="draft")
    load("org/llada")
    here.refuse = 500
    load("org/llada")  # the copy in the cache is complete
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "org/llada is not in the cache, and the Hub cannot be reached. Check the network" in refusal()
    monkeypatch.setattr(constants, "ENDPOINT", here.url)
    here.refuse = None
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "cache"))
    (tmp_path / "file").touch()
    assert "file/cache cannot be created. Set HF_HOME" in refusal()


def test_only_a_model_card_needs_the_readme(here: Hub, tmp_path: Path) -> None:
    """The converter takes license and languages from README.md, and writes a card without them if it is missing."""
    card = convert("org/llada", tmp_path / "out").folder / "README.md"
    assert "license: mit" in card.read_text() and "base_model: org/llada" in card.read_text()
    cached = tmp_path / "cache" / "models--org--llada" / "snapshots" / COMMIT / "README.md"
    os.unlink(os.path.realpath(cached))  # noqa: PTH108
    cached.unlink()
    here.refuse, here.only = 404, "README"
    card = convert("org/llada", tmp_path / "again").folder / "README.md"
    assert "license" not in card.read_text() and "base_model: org/llada" in card.read_text()
