"""Folders of local checkpoints and downloads from the Hub: small files first, weights only after the checks."""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from d3mlx.checkpoints.headers import INDEX, Tensor, parse_file, read_weight_map
from d3mlx.errors import CheckpointError, ConfigError
from d3mlx.terminal import printable

SMALL_FILES = ["*.json", "*.txt", "*.jinja"]
"""Configuration, tokenizer and templates. The code of a checkpoint is never downloaded."""

WEIGHTS = "model*.safetensors"

FIRST_BYTES = 65_536
"""Bytes of a weight file in the first request for its header. Most headers are shorter."""

PATIENCE = 30
"""Seconds without an answer after which a download ends, if no HF_HUB_*_TIMEOUT variable is set."""

SHIPPED = {name: Path(__file__).parents[1] / "data" / name for name in ("embedded", "teacher")}
"""Folders of the bundled models, by name."""


@dataclass(frozen=True)
class Source:
    """A checkpoint's folder and the weights to download into it.

    repo: the Hub id, None for a local folder. headers: tensors of each weight file that is still on the Hub, by file
    name. sizes: bytes of each of these files.
    """

    folder: Path
    repo: str | None = None
    headers: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def download(self) -> None:
        """Download the weights that are still on the Hub. Raises CheckpointError."""
        missing = [name for name in self.headers if not (self.folder / name).is_file()]
        if self.repo is None or not missing:
            return
        refuse_full_disk(self.folder, sum(self.sizes[name] for name in missing))
        with hub_client(self.repo, self.folder.name) as hub:
            hub.snapshot(self.folder.name, missing, shown=True)


def fetch(path_or_repo: str, revision: str | None = None) -> Source:
    """Return the source of a checkpoint, given a folder, the name of a bundled model, or a Hub id.

    For a Hub id, download the small files, and the headers of weights that are not in the cache. `Source.download`
    downloads the weights. HF_HOME, HF_TOKEN and HF_HUB_OFFLINE work as for every Hub tool. Raises CheckpointError, and
    ConfigError for a revision of a folder.
    """
    folder = Path(os.path.expanduser(path_or_repo))  # noqa: PTH111 - Path's own raises for an unknown user
    if not folder.is_dir() and path_or_repo in SHIPPED:
        folder = SHIPPED[path_or_repo]
    if folder.is_dir():
        if revision is not None:
            raise ConfigError(f"{path_or_repo} is a folder, which has no revisions. Leave out the revision.")
        return Source(folder)
    if folder.exists():
        raise CheckpointError(f"{path_or_repo} is a file. Give the folder of a checkpoint.")
    if path_or_repo.startswith(("/", ".", "~")) or path_or_repo.count("/") != 1:
        raise CheckpointError(
            f"{path_or_repo!r} is neither a folder nor a Hugging Face id such as GSAI-ML/LLaDA-8B-Instruct, nor one of "
            f"the bundled models ({', '.join(SHIPPED)})."
        )
    return from_hub(path_or_repo, revision)


def from_hub(repo: str, revision: str | None) -> Source:
    """Return the source of a Hub id: the folder with its small files, and headers of weights that are not in it."""
    with hub_client(repo, revision) as hub:
        folder = hub.small_files()
        if has_weights(folder):
            return Source(folder, repo)
        names = [name for name in hub.names(folder.name) if fnmatch(name, WEIGHTS) and not (folder / name).is_file()]
        with ThreadPoolExecutor(8) as pool:
            parsed = list(pool.map(lambda name: hub.header(folder.name, name), names))
    headers = {name: header for name, (header, _) in zip(names, parsed, strict=True)}
    return Source(folder, repo, headers, {name: size for name, (_, size) in zip(names, parsed, strict=True)})


def fetch_card(repo: str, commit: str) -> Path:
    """Return the path of the downloaded README.md of a Hub id. Raises CheckpointError."""
    with hub_client(repo, commit) as hub:
        return hub.snapshot(commit, ["README.md"]) / "README.md"


def has_weights(folder: Path) -> bool:
    """Return whether all weight files are in a folder, by the index or else by the count in the file names."""
    if not (folder / "config.json").is_file():
        return False
    if (folder / INDEX).is_file():
        return all((folder / name).is_file() for name in read_weight_map(folder / INDEX).values())
    names = [path.name for path in folder.glob(WEIGHTS) if path.is_file()]
    counted = [int(match[1]) for name in names if (match := re.search(r"-of-(\d+)\.", name))]
    return len(names) >= max(counted, default=1)


@dataclass
class Hub:
    """The Hub's client for one revision of a repository.

    patience: seconds to wait for an answer. folder: the repository's files in the cache, None while unknown. bars: the
    progress bars that are open.
    """

    repo: str
    revision: str | None
    patience: float
    folder: Path | None = None
    bars: list[Any] = field(default_factory=list)

    def snapshot(self, revision: str | None, patterns: list[str], shown: bool = False) -> Path:
        """Download the files that match `patterns`; return their folder in the cache. shown: show progress bars."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils import tqdm

        bars = self.bars

        class Bar(tqdm):  # type: ignore[misc]
            """A progress bar that only a terminal shows and that is removed at the end.

            `bars` collects all bars, because the client does not close all of them.
            """

            def __init__(self, *args: Any, **kwargs: Any):
                # None shows the bar on a terminal only.
                disable = kwargs.get("disable") if shown else True
                named = {"desc": printable(kwargs["desc"])} if kwargs.get("desc") else {}
                super().__init__(*args, **kwargs | named | {"disable": disable, "leave": False})
                bars.append(self)

        folder = snapshot_download(
            self.repo, revision=revision, allow_patterns=patterns, etag_timeout=self.patience, tqdm_class=Bar
        )
        return Path(folder)

    def small_files(self) -> Path:
        """Return the folder with the small files. Without a connection these are the files in the cache."""
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            self.folder = self.snapshot(self.revision, SMALL_FILES)
        except LocalEntryNotFoundError as error:
            cached = getattr(error, "snapshot_path", None)
            if cached is None:
                raise
            # The missing files may be unnecessary. Later reads fail if a necessary file is missing.
            self.folder = Path(cached)
            if not has_weights(self.folder):
                raise
        return self.folder

    def names(self, commit: str) -> list[str]:
        """Return the names of all files of a commit."""
        from huggingface_hub import HfApi

        files = HfApi().model_info(self.repo, revision=commit, timeout=self.patience).siblings
        return sorted(file.rfilename for file in files or [])

    def header(self, commit: str, name: str) -> tuple[dict[str, Tensor], int]:
        """Return the tensors of a weight file on the Hub, and its size in bytes. Raises CheckpointError if damaged."""
        content, size = self.part(commit, name, 0, FIRST_BYTES)
        end = 8 + int.from_bytes(content[:8], "little")
        if len(content) < end <= size:
            content += self.part(commit, name, len(content), end)[0]
        try:
            return parse_file(Path(name), size, content), size
        except CheckpointError as error:
            raise CheckpointError(
                f"{self.repo} contains a damaged file, {name}. Use another revision or another copy of the model."
            ) from error

    def part(self, commit: str, name: str, start: int, end: int) -> tuple[bytes, int]:
        """Return the bytes from `start` to `end` of a file on the Hub, and the size of the file."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        wanted = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        url = hf_hub_url(self.repo, name, revision=commit)
        answer = get_session().get(url, headers=build_hf_headers() | wanted, timeout=self.patience)
        hf_raise_for_status(answer)
        size = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if not size.isdecimal():
            raise CheckpointError(
                f"The answer to a request for a part of {name} of {self.repo} is not that part, so it is probably not "
                "from the Hub. Check the network and HF_ENDPOINT, then try again."
            )
        return answer.content, int(size)


@contextmanager
def hub_client(repo: str, revision: str | None) -> Iterator[Hub]:
    """Yield the Hub's client for a repository, close its bars at the end, and turn every error into CheckpointError."""
    # Imported here because the Hub's client takes longer to import than the rest of the command line.
    from huggingface_hub import constants
    from huggingface_hub.utils import logging

    # The client logs each retry. The error at the end gives the same information.
    verbosity = logging.get_verbosity()
    if "HF_HUB_VERBOSITY" not in os.environ:
        logging.set_verbosity_error()
    own = {"HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"} & {*os.environ}
    hub = Hub(repo, revision, max((float(getattr(constants, name)) for name in own), default=PATIENCE))
    try:
        with answers_within(hub.patience):
            yield hub
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(sentence(error, hub)) from error
    finally:
        logging.set_verbosity(verbosity)
        # The top bar must be closed last, because only it moves the cursor back to the start of the line.
        for bar in reversed(hub.bars):
            bar.close()


@contextmanager
def answers_within(patience: float) -> Iterator[None]:
    """Raise TimeoutError from a request after `patience` seconds without an answer, including all retries.

    By itself, the client waits without limit for some requests and retries others for minutes.
    """
    from huggingface_hub.utils import get_session

    unanswered: dict[int, float] = {}

    def before(request: Any) -> None:
        since = unanswered.setdefault(threading.get_ident(), time.monotonic())
        if time.monotonic() - since >= patience:
            raise TimeoutError
        limits = request.extensions["timeout"]
        request.extensions["timeout"] = {name: patience if value is None else value for name, value in limits.items()}

    def after(_: Any) -> None:
        unanswered.pop(threading.get_ident(), None)

    hooks = get_session().event_hooks
    hooks["request"].append(before)
    hooks["response"].append(after)
    try:
        yield
    finally:
        hooks["request"].remove(before)
        hooks["response"].remove(after)


def sentence(error: Exception, hub: Hub) -> str:
    """Return the message for an error of the Hub, with what the user can do."""
    from huggingface_hub import constants

    repo, causes = hub.repo, list(chain(error))
    kinds = " ".join(kind.__name__ for cause in causes for kind in type(cause).__mro__)
    cached = hub.folder is not None or "IncompleteSnapshotError" in kinds
    state = f"The copy of {repo} in the cache is incomplete" if cached else f"{repo} is not in the cache"
    status, wait = http_status(causes)
    numbers = {cause.errno for cause in causes if isinstance(cause, OSError)}
    if "HFValidationError" in kinds:
        return f"{repo!r} is neither a folder nor a valid Hugging Face id such as GSAI-ML/LLaDA-8B-Instruct."
    if "UnicodeEncodeError" in kinds or ("LocalProtocolError" in kinds and "header" in str(error)):
        return "The Hugging Face token is not a token. Correct HF_TOKEN, or log in again with `hf auth login`."
    if "GatedRepoError" in kinds:
        return f"{repo} is gated. Accept its terms on its page on the Hub, then log in with `hf auth login`."
    if "RevisionNotFoundError" in kinds:
        return f"{repo} has no revision {hub.revision!r} on the Hub. Use a branch, a tag or a commit of this model."
    if "RepositoryNotFoundError" in kinds or status in (401, 403):
        return (
            f"{repo} is neither a folder nor a model on the Hub that you may read. Check the name, or log in with "
            "`hf auth login` if the model is private."
        )
    if "OfflineModeIsEnabled" in kinds:
        return f"{state}, and HF_HUB_OFFLINE is set. Unset HF_HUB_OFFLINE to download it."
    if status == 429:
        waiting = f"Wait {wait} s" if wait else "Wait some minutes"
        return f"{state}, and the Hub limits the rate of requests (429). {waiting}, then try again."
    if status >= 500:
        return f"{state}, and the Hub has a server error ({status}). Try again later."
    if {errno.ENOSPC, errno.EDQUOT} & numbers or "No space left" in str(error):
        return (
            f"The disk of the cache {constants.HF_HUB_CACHE} is full. Make room, or set HF_HOME to a folder on "
            "another disk."
        )
    if {errno.EACCES, errno.EPERM, errno.EROFS} & numbers:
        return (
            f"The cache {constants.HF_HUB_CACHE} cannot be written: no permission. Change its permissions, or set "
            "HF_HOME to another folder."
        )
    if {errno.ENOENT, errno.ENOTDIR} & numbers:
        return f"The cache {constants.HF_HUB_CACHE} cannot be created. Set HF_HOME to another folder."
    if "Timeout" in kinds:
        return (
            f"{state}, and the Hub does not answer within {hub.patience:g} s. Check the network, then try again; "
            "complete files are kept."
        )
    if re.search("ConnectError|NetworkError|ProtocolError|ConnectionError", kinds):
        return f"{state}, and the Hub cannot be reached. Check the network, then try again; complete files are kept."
    if re.search("JSONDecodeError|KeyError|TypeError", kinds):
        return (
            f"The answer about {repo} cannot be read, so it is probably not from the Hub. Check the network and "
            "HF_ENDPOINT, then try again."
        )
    reason = str(error).splitlines()[0].rstrip(".: ") if str(error) else type(error).__name__
    return f"{repo} could not be downloaded: {reason}. Check the network and HF_ENDPOINT, then try again."


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the errors that caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def http_status(causes: list[BaseException]) -> tuple[int, str]:
    """Return the HTTP status of the Hub's answer, 0 without one, and the seconds to wait, empty if unknown."""
    for cause in causes:
        answer: Any = getattr(cause, "response", None)
        if isinstance(status := getattr(answer, "status_code", None), int):
            limits = re.search(r"\bt=(\d+)", answer.headers.get("ratelimit", ""))
            wait = answer.headers.get("Retry-After") or (limits[1] if limits else "")
            return status, wait if str(wait).isdigit() else ""
    return 0, ""


def refuse_full_disk(folder: Path, needed: int) -> None:
    """Raise CheckpointError if the disk of a folder has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise CheckpointError(
            f"The weights take {needed / 1e9:.1f} GB and the disk of the cache {folder.parents[2]} has "
            f"{free / 1e9:.1f} GB free. Make room, or set HF_HOME to a folder on another disk."
        )
