"""A local folder or a hub id becomes a folder on disk."""

from __future__ import annotations

import os
from pathlib import Path

from d3mlx.errors import CheckpointError, ConfigError

PATTERNS = ["*.json", "README.md", "model*.safetensors", "*.txt", "*.jinja", "*.model"]
"""Data only: code that lies beside a checkpoint is never downloaded."""

SHIPPED = {name: Path(__file__).parents[1] / "data" / name for name in ("embedded", "teacher", "pairs")}
"""The models that come with the package, by the names that stand for their folders."""


def fetch(path_or_repo: str, revision: str | None = None) -> Path:
    """The folder of a checkpoint: on disk, one that ships by its name, or in the hub's cache, downloaded if need be.

    HF_HOME, HF_TOKEN and HF_HUB_OFFLINE work as for every hub tool. Raises CheckpointError, and ConfigError for a
    revision of a folder.
    """
    folder = Path(os.path.expanduser(path_or_repo))  # noqa: PTH111 - Path's own raises for an unknown user
    if not folder.is_dir() and path_or_repo in SHIPPED:
        folder = SHIPPED[path_or_repo]
    if folder.is_dir():
        if revision is not None:
            raise ConfigError(f"{path_or_repo} is a folder; a revision belongs to a hub id.")
        return folder
    if folder.exists():
        raise CheckpointError(f"{path_or_repo} is a file; give the folder of a checkpoint.")
    if path_or_repo.startswith(("/", ".", "~")) or path_or_repo.count("/") != 1:
        raise CheckpointError(
            f"There is no folder {path_or_repo}, and it is no hub id such as GSAI-ML/LLaDA-8B-Instruct."
        )
    return download(path_or_repo, revision)


def download(repo: str, revision: str | None) -> Path:
    # Imported here because the hub's client takes longer to import than the rest of the command line together.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=PATTERNS))
    except HFValidationError:
        raise CheckpointError(f"There is no folder {repo}, and it is no valid hub id.") from None
    except GatedRepoError as error:
        raise CheckpointError(
            f"{repo} is gated: accept its terms on the hub, then log in with `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{repo} has no revision {revision!r} on the hub.") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"There is no folder {repo} and no model of that name on the hub (or it is private: `hf auth login`)."
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise CheckpointError(
            f"{repo} is not in the local cache and the hub cannot be reached; check the network, or HF_HUB_OFFLINE."
        ) from error
    except Exception as error:
        # Refusals, time-outs and full disks come from several libraries, which share no base class.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{repo} could not be downloaded: {reason}") from error
