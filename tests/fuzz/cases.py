"""The cases: a kind of damage, and the command that meets it. A case depends only on its random numbers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import junk
from tests.fuzz.base import TEMPLATE, TRAINING, Base


@dataclass(frozen=True)
class Case:
    """A command line without the name of the program, and the folder that it may leave only if it succeeds."""

    arguments: list[str]
    output: Path | None = None


def linked(source: Path, folder: Path) -> Path:
    """Return a new folder with links to the files of another one."""
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def put(path: Path, content: bytes) -> None:
    """Write a file in the place of a link."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def model_command(rng: Random, model: Path, here: Path) -> Case:
    """Return a command that reads a model folder."""
    out = here / "out"
    tiny = ["--model", str(model), "--max-tokens", "4"]
    return rng.choice(
        (
            Case(["info", str(model)]),
            Case(["info", str(model), "--json"]),
            Case(["generate", "hi", *tiny]),
            Case(["generate", "hi", *tiny, "--raw", "--stop", "x"]),
            Case(["generate", "hi", *tiny, "--json"]),
            Case(["convert", "--hf-path", str(model), "--mlx-path", str(out)], out),
            Case(["convert", "--hf-path", str(model), "--mlx-path", str(out), "-q", "--q-group-size", "32"], out),
            Case(["distill", "--model", str(model), "--estimate"]),
            Case(["bench", "--roofline", "M4 Max", "--model", str(model)]),
        )
    )


def some_model(rng: Random, base: Base, here: Path) -> Path:
    return linked(rng.choice((base.llada, base.dream)), here / "model")


def config(rng: Random, base: Base, here: Path) -> Case:
    model = some_model(rng, base, here)
    name = rng.choice(("config.json", "config.json", "config.json", "generation_config.json"))
    fields = json.loads((model / name).read_text())
    kind = rng.random()
    if kind < 0.15:
        fields["quantization"] = {"group_size": 64, "bits": 4, "lm_head": junk.value(rng), "a.b": junk.value(rng)}
    elif kind < 0.3:
        fields[rng.choice(("rope_scaling", "rope_parameters"))] = {"rope_type": "yarn", "factor": 2.0}
    put(model / name, junk.text(rng, junk.changed(rng, fields, near=0.8)))
    return model_command(rng, model, here)


def headers(rng: Random, base: Base, here: Path) -> Case:
    model = some_model(rng, base, here)
    path = rng.choice(sorted(model.glob("*.safetensors")))
    put(path, junk.weights(rng, path.read_bytes()))
    return model_command(rng, model, here)


def index(rng: Random, base: Base, here: Path) -> Case:
    model = linked(base.llada, here / "model")
    path = model / "model.safetensors.index.json"
    put(path, junk.text(rng, junk.changed(rng, json.loads(path.read_text()))))
    return model_command(rng, model, here)


TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")


def tokenizer(rng: Random, base: Base, here: Path) -> Case:
    model = some_model(rng, base, here)
    names = {"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"} & {
        path.name for path in model.iterdir()
    }
    name = rng.choice((*sorted(names), "special_tokens_map.json", "added_tokens.json"))
    path = model / name
    if not path.exists():
        put(path, junk.text(rng, rng.choice((junk.value(rng), {"eos_token": junk.value(rng)}))))
    elif name == "merges.txt":
        put(path, junk.damaged(rng, path.read_bytes()))
    else:
        put(path, junk.text(rng, junk.changed(rng, json.loads(path.read_text()), near=0.4)))
    return model_command(rng, model, here)


PIECES = (
    "{{ messages }}",
    "{{ messages[0]['content'] }}",
    "{{ messages[9].content }}",
    "{% for m in messages %}{{ m['content'] * 3 }}{% endfor %}",
    "{% for i in range(1000) %}{{ i }}{% endfor %}",
    "{% for i in range(10 ** 9) %}x{% endfor %}",
    "{{ 'x' * 10 ** 12 }}",
    "{{ 1 / 0 }}",
    "{{ undefined.a.b }}",
    "{{ raise_exception('no') }}",
    "{{ messages.__class__.__mro__ }}",
    "{{ ''.format.__globals__ }}",
    "{% include 'x' %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% set x = namespace(a=1) %}{{ x.b }}",
    "{% if %}",
    "{% endfor %}",
    "{{",
    "\x1b[2J",
    "\x00",
    "{% generation %}",
    "{{ strftime_now(1) }}",
    "{{ tools | tojson }}",
    "{{ messages | map('upper') }}",
    TEMPLATE,
)


def template(rng: Random, base: Base, here: Path) -> Case:
    model = some_model(rng, base, here)
    text = "".join(rng.choices(PIECES, k=rng.choice((1, 1, 2, 3)))).encode()
    if rng.random() < 0.2:
        text = junk.damaged(rng, text)
    put(model / "chat_template.jinja", text)
    return Case(["generate", "hi", "--model", str(model), "--max-tokens", "4"])


def data_command(rng: Random, base: Base, data: Path, here: Path) -> Case:
    """Return a command that reads rows of data."""
    model, out = ["--model", str(base.llada)], here / "out"
    sft = ["distill", *model, "--data", str(data), "--adapter-path", str(out), "--objective", "sft"]
    task = rng.choice(("gsm8k-cot", "math", "humaneval", "mbpp"))
    evaluation = ["eval", *model, "--task", task, "--data", str(data), "--count", "1", "--max-tokens", "4"]
    return rng.choice(
        (
            Case(["trajectories", str(out), *model, "--data", str(data), "--max-tokens", "4"]),
            Case(["trajectories", str(out), *model, "--import", str(data)]),
            Case([*sft, "--iters", "1", "--batch-size", "1", "--grad-accumulation-steps", "1", "--rank", "2"]),
            Case([*evaluation, "--out", str(out), "--decoder", "vanilla"]),
        )
    )


PUBLISHED = {"question": "hi", "prompt_ids": [1, 2, 3], "trajectory": [[258, 258], [5, 258], [5, 6]]}
PROBLEM = {
    "problem": "1+1?",
    "solution": "so \\boxed{2}",
    "level": "Level 1",
    "task_id": "T/0",
    "prompt": "def f():\n",
    "canonical_solution": "    return 1\n",
    "test": "def check(f):\n    assert f() == 1\n",
    "entry_point": "f",
    "question": "1+1?",
    "answer": "#### 2",
    "text": "add",
    "code": "x",
    "test_list": ["assert True"],
}


def rows(rng: Random, base: Base, here: Path) -> Case:
    records = [json.loads(line) for line in base.rows.read_text().splitlines()] + [PUBLISHED, PROBLEM]
    chosen = rng.sample(records, k=rng.choice((1, 1, 2, 4)))
    lines = [junk.text(rng, junk.changed(rng, record, near=0.7)) for record in chosen]
    data = here / "data.jsonl"
    data.write_bytes(rng.choice((b"\n", b"\n", b"\r\n", b",")).join(lines))
    return data_command(rng, base, data, here)


def adapters(rng: Random, base: Base, here: Path) -> Case:
    folder = linked(rng.choice((base.peft, base.adapters)), here / "adapters")
    path = rng.choice(sorted(folder.iterdir()))
    if path.suffix == ".json":
        put(path, junk.text(rng, junk.changed(rng, json.loads(path.read_text()))))
    else:
        put(path, junk.weights(rng, path.read_bytes()))
    out = here / "out"
    model = ["--model", str(base.llada), "--adapter-path", str(folder)]
    return rng.choice(
        (Case(["fuse", *model, "--save-path", str(out)], out), Case(["generate", "hi", *model, "--max-tokens", "4"]))
    )


def train(base: Base, data: Path, out: Path) -> list[str]:
    """Return the arguments of a small training."""
    return ["distill", "--model", str(base.llada), "--data", str(data), "--adapter-path", str(out), *TRAINING]


def settings(rng: Random, base: Base, here: Path) -> Case:
    """Return a training with a changed config file."""
    path = here / rng.choice(("settings.yaml", "settings.toml"))
    fields = {"rank": 2, "targets": ["q_proj"], "block_sizes": [4], "learning_rate": 1e-4, "preset": "llada"}
    text = junk.text(rng, junk.changed(rng, fields))
    if path.suffix == ".toml" and rng.random() < 0.7:
        changed = junk.changed(rng, fields, near=1)
        text = "\n".join(f"{key} = {json.dumps(entry)}" for key, entry in changed.items()).encode() if changed else b""
    path.write_bytes(text)
    return Case([*train(base, base.store, here / "out"), "--iters", "1", "--config", str(path)])


def copied(source: Path, folder: Path) -> Path:
    """Return a copy of a folder to which the command may write."""
    return Path(shutil.copytree(source, folder))


def stores(rng: Random, base: Base, here: Path) -> Case:
    """Return a command that reads or continues a changed folder: trajectories, an evaluation or a training."""
    source = rng.choice((base.store, base.runs, base.trained))
    folder = copied(source, here / source.name)
    path = rng.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    if path.suffix == ".safetensors":
        put(path, junk.weights(rng, path.read_bytes()))
    elif path.suffix == ".jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        put(path, b"\n".join(junk.text(rng, junk.changed(rng, line)) for line in lines) + b"\n")
    else:
        put(path, junk.text(rng, junk.changed(rng, json.loads(path.read_text()), near=0.7)))
    model = ["--model", str(base.llada), "--max-tokens", "4"]
    if source is base.trained:
        return Case([*train(base, base.store, folder), "--iters", "2", "--resume"])
    if source is base.runs:
        continued = ["eval", *model, "--count", "1", "--out", str(folder), "--thresholds", "0.1"]
        return Case(rng.choice((["compare", str(folder)], continued)))
    continued = ["trajectories", str(folder), *model, "--data", str(base.rows), "--limit", "1"]
    return Case(rng.choice(([*train(base, folder, here / "out"), "--iters", "1"], continued)))


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


SPECIAL: tuple[Callable[[Path], None], ...] = (
    make_fifo,
    lambda path: path.mkdir(),
    lambda path: path.symlink_to("/dev/zero"),
    lambda path: path.symlink_to("/dev/null"),
    lambda path: path.symlink_to(path),
    lambda path: path.symlink_to("absent"),
    lambda path: None,
)


def special(rng: Random, base: Base, here: Path) -> Case:
    """Put a pipe, a device, a folder, a link without target, or nothing in the place of a file."""
    sources = (base.llada, base.dream, base.peft, base.adapters, base.store, base.runs, base.rows)
    source = rng.choice(sources)
    if source is base.rows:
        path = here / "data.jsonl"
        rng.choice(SPECIAL)(path)
        return data_command(rng, base, path, here)
    folder = linked(source, here / source.name)
    path = rng.choice(sorted(folder.iterdir()))
    path.unlink()
    rng.choice(SPECIAL)(path)
    if source in (base.llada, base.dream):
        return model_command(rng, folder, here)
    if source is base.runs:
        return Case(["compare", str(folder)])
    if source is base.store:
        return Case(["distill", "--model", str(base.llada), "--data", str(folder), "--iters", "1"])
    return Case(["generate", "hi", "--model", str(base.llada), "--adapter-path", str(folder), "--max-tokens", "4"])


NUMBERS = (
    "0",
    "-1",
    "1",
    "2",
    "3",
    "0.5",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "1000000000",
    str(10**12),
    "9" * 5000,
    "x",
    "",
)
TEXTS = (
    "",
    "x",
    "\x1b[31m",
    "\udcff",
    "[/bold]",
    "é",
    "a" * 5000,
    "a/b",
    "~x",
    "-",
    "--",
    "0.1,nan",
    "1,2,x",
    ",",
    "none",
)
PATHS = ("absent", "absent/below", "", "-", "/dev/null", "/dev/full", "/proc/self/mem", "\udcff", "b" * 300, "c/" * 900)


def base_command(rng: Random, base: Base, here: Path) -> tuple[str, list[str]]:
    """Return a command with the arguments that make it small."""
    model, out = ["--model", str(base.llada)], str(here / "out")
    small = ["--iters", "1", *TRAINING]
    commands = {
        "generate": ["hi", *model, "--max-tokens", "4"],
        "info": [str(base.llada)],
        "decoders": [],
        "convert": ["--hf-path", str(base.llada), "--mlx-path", out],
        "trajectories": [out, *model, "--data", str(base.rows), "--max-tokens", "4", "--limit", "1"],
        "distill": [*model, "--data", str(base.store), *small, "--adapter-path", out],
        "fuse": [*model, "--adapter-path", str(base.adapters), "--save-path", out],
        "eval": [*model, "--count", "1", "--max-tokens", "4", "--out", out],
        "compare": [str(base.runs)],
        "bench": [*model, "--roofline", "M4 Max"],
        "demo": ["--count", "0"],
    }
    name = rng.choice([*commands, "generate", "distill", "eval"])
    return name, commands[name]


OTHER_COMMANDS = {"upload_repo"}
"""Options that would need the network."""


def option_value(rng: Random, parameter: Any, base: Base, here: Path) -> str:
    """Return a value for an option: usually of its type, sometimes an existing file or folder."""
    kind = parameter.type_descriptor.annotation
    if rng.random() < 0.1:
        # A copy, because the option may be an output.
        source = rng.choice((base.llada, base.rows, base.store, base.runs, base.adapters))
        target = here / f"{len(list(here.iterdir()))}-{source.name}"
        return str(copied(source, target) if source.is_dir() else shutil.copy(source, target))
    if kind in (int, float):
        return rng.choice(NUMBERS)
    return rng.choice(PATHS if kind is Path else (*TEXTS, *PATHS, *NUMBERS))


def options(rng: Random, base: Base, here: Path) -> Case:
    """Give random options to a command."""
    from d3mlx.cli.main import load_command

    name, arguments = base_command(rng, base, here)
    known = [p for p in load_command(name).params if p.param_type_name == "option" and p.name not in OTHER_COMMANDS]
    given: list[str] = []
    for parameter in rng.choices(known, k=rng.choice((1, 1, 2, 3))) if known else ():
        given.append(rng.choice((*parameter.opts, *parameter.secondary_opts)))
        if not parameter.is_flag:
            given.append(option_value(rng, parameter, base, here))
    if rng.random() < 0.1:
        given.append(rng.choice(TEXTS))
    return Case([name, *arguments, *given])


KINDS: dict[str, Callable[[Random, Base, Path], Case]] = {
    "config": config,
    "headers": headers,
    "index": index,
    "tokenizer": tokenizer,
    "template": template,
    "rows": rows,
    "adapters": adapters,
    "stores": stores,
    "settings": settings,
    "special": special,
    "options": options,
}


def case(seed: int, number: int, base: Base, here: Path) -> tuple[str, Case]:
    """Return the kind and the case of a number, with its files in the empty folder `here`."""
    kind = [*KINDS][number % len(KINDS)]
    made = KINDS[kind](Random(f"{seed}:{number}"), base, here)
    # A command line cannot contain the end of a C text.
    return kind, replace(made, arguments=[argument.replace("\0", "") for argument in made.arguments])
