"""The model card of a converted folder, and its way to the hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, ModelCard, ModelCardData

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


def write_card(folder: Path, name: str, source: Path, repo: str | None, facts: str) -> None:
    """README.md in `folder`.

    name: what the folder is called where it is used. source: the folder converted from, whose card gives licence and
    languages. repo: its hub id, None for a local one. facts: what was done to the weights.
    """
    data = source_data(source / "README.md")
    data.library_name = "mlx"
    data.pipeline_tag = "text-generation"
    data.tags = list(dict.fromkeys([*(data.tags or []), "mlx", "diffusion"]))
    if repo:
        data.base_model = repo
    origin = f"[{repo}](https://huggingface.co/{repo})" if repo else "a local checkpoint"
    text = TEXT.format(name=name, origin=f"Converted from {origin} by d3mlx {VERSION}: {facts}.")
    (folder / "README.md").write_text(f"---\n{data.to_yaml()}\n---\n{text}", encoding="utf-8")


def source_data(path: Path) -> ModelCardData:
    """The metadata of a card; empty where there is none that can be read."""
    try:
        return ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True).data
    except (OSError, ValueError, TypeError):
        return ModelCardData()


def check_login(repo: str) -> None:
    """Raise ConfigError unless an upload can start: better said before the conversion than after it."""
    try:
        HfApi().whoami()
    except Exception as error:
        # Refusals, time-outs and missing tokens come from several libraries, which share no base class.
        raise ConfigError(
            f"{repo} cannot be uploaded to: {first_line(error)} Log in with `hf auth login`, or leave out the upload."
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
