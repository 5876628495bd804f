"""The model card of a converted folder, and its way to the hub."""

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
    """Where a folder comes from. name: what it is called where it is used. source: folder or hub id of the model that
    it was made from. facts: what was done to the weights."""

    name: str
    source: str
    facts: str

    @property
    def repo(self) -> str | None:
        """The source's hub id, None for a local folder."""
        here = self.source in SHIPPED or Path(self.source).expanduser().is_dir()
        return None if here else self.source


def write_card(folder: Path, source: Path, origin: Origin) -> None:
    """README.md in `folder`; the card of the folder `source` gives licence and languages."""
    try:
        card = source / "README.md"
        if origin.repo and not card.is_file():
            card = fetch_card(origin.repo, source.name)
        metadata = metadata_of(source_data(card), origin)
    except Exception:
        # Neither a missing card nor the language in which somebody wrote it keeps weights from being converted.
        metadata = metadata_of(ModelCardData(), origin)
    made_from = f"[{origin.repo}](https://huggingface.co/{origin.repo})" if origin.repo else "a local checkpoint"
    text = TEXT.format(name=origin.name, origin=f"Made from {made_from} by d3mlx {VERSION}: {origin.facts}.")
    (folder / "README.md").write_text(f"---\n{metadata}\n---\n{text}", encoding="utf-8")


def source_data(path: Path) -> ModelCardData:
    """The metadata of a card; empty where there is none."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return ModelCard(text, ignore_metadata_errors=True).data if text.startswith("---") else ModelCardData()


def metadata_of(data: ModelCardData, origin: Origin) -> str:
    data.library_name = "mlx"
    data.pipeline_tag = "text-generation"
    data.tags = list(dict.fromkeys([*(data.tags or []), "mlx", "diffusion"]))
    if origin.repo:
        data.base_model = origin.repo
    return str(data.to_yaml())


def check_login(repo: str) -> None:
    """Raise ConfigError unless an upload can start: better said before the conversion than after it."""
    try:
        HfApi().whoami()
    except LocalTokenNotFoundError as error:
        raise ConfigError("Log in with `hf auth login` before an upload, or leave out the upload.") from error
    except Exception as error:
        # Refusals, time-outs and missing tokens come from several libraries, which share no base class.
        raise ConfigError(
            f"{repo} cannot be uploaded to: {first_line(error)} Mend that, or leave out the upload."
        ) from error


def upload(folder: Path, repo: str) -> str:
    """Send a folder to the hub; its address there. Raises CheckpointError, which says where the folder is."""
    try:
        api = HfApi()
        address = api.create_repo(repo_id=repo, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message=f"Converted by d3mlx {VERSION}")
    except Exception as error:
        raise CheckpointError(
            f"The converted model is in {folder}, but its upload to {repo} failed: {first_line(error)}"
        ) from error
    return str(address)


def first_line(error: Exception) -> str:
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line if line.endswith(".") else f"{line}."
