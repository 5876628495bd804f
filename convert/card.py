"""The model card of a converted folder, and the upload to the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import LocalTokenNotFoundError

from d3mlx.checkpoints.hub import SHIPPED, fetch_card
from d3mlx.errors import CheckpointError, ConfigError
from d3mlx.version import VERSION

TEXT = """
# {name}

{origin}

```bash
pip install d3mlx
d3mlx generate "Why is the sky blue?" --model {name}
```

```python
from d3mlx import generate, load

model, tokenizer = load("{name}")
print(generate(model, tokenizer, [{{"role": "user", "content": "Why is the sky blue?"}}]).text)
```
"""


@dataclass(frozen=True)
class Origin:
    """The origin of a folder.

    name: the model's name in the commands of the card. source: folder or hub id of the source model. facts: a phrase
    about the weights, for example their quantization.
    """

    name: str
    source: str
    facts: str

    @property
    def repo(self) -> str | None:
        """Return the source's hub id; None for a local folder."""
        local = self.source in SHIPPED or Path(self.source).expanduser().is_dir()
        return None if local else self.source


def write_card(folder: Path, source: Path, origin: Origin) -> None:
    """Write README.md to `folder`. The card in the folder `source`, or on the hub, gives license and languages."""
    try:
        card = source / "README.md"
        if origin.repo and not card.is_file():
            card = fetch_card(origin.repo, source.name)
        metadata = metadata_of(source_data(card), origin)
    except Exception:
        # A missing or invalid card must not stop the conversion of the weights.
        metadata = metadata_of(ModelCardData(), origin)
    made_from = f"[{origin.repo}](https://huggingface.co/{origin.repo})" if origin.repo else "a local checkpoint"
    text = TEXT.format(name=origin.name, origin=f"Made from {made_from} by d3mlx {VERSION}: {origin.facts}.")
    (folder / "README.md").write_text(f"---\n{metadata}\n---\n{text}", encoding="utf-8")


def source_data(path: Path) -> ModelCardData:
    """Return the metadata of a card. It is empty without a card."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return ModelCard(text, ignore_metadata_errors=True).data if text.startswith("---") else ModelCardData()


def metadata_of(data: ModelCardData, origin: Origin) -> str:
    """Add the fields of a converted model to `data` and return all of it as YAML."""
    data.library_name = "mlx"
    data.pipeline_tag = "text-generation"
    data.tags = list(dict.fromkeys([*(data.tags or []), "mlx", "diffusion"]))
    if origin.repo:
        data.base_model = origin.repo
    return str(data.to_yaml())


def check_login(repo: str) -> None:
    """Raise ConfigError if an upload cannot start. Call this before the conversion, which takes long."""
    try:
        HfApi().whoami()
    except LocalTokenNotFoundError as error:
        raise ConfigError("Not logged in to the hub. Run `hf auth login`, or run without --upload-repo.") from error
    except Exception as error:
        # Errors of network and login come from several libraries and share no base class.
        raise ConfigError(
            f"Cannot upload to {repo}: {first_line(error)} Fix this, or run without --upload-repo."
        ) from error


def upload(folder: Path, repo: str) -> str:
    """Upload a folder to the hub and return its address there. Raises CheckpointError that names the folder."""
    try:
        api = HfApi()
        address = api.create_repo(repo_id=repo, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message=f"Converted by d3mlx {VERSION}")
    except Exception as error:
        raise CheckpointError(
            f"The converted model is in {folder}, but the upload to {repo} failed: {first_line(error)}"
        ) from error
    return str(address)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its type, with a full stop."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line if line.endswith(".") else f"{line}."
