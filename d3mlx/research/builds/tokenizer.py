"""Train the tokenizer of the stories, and write it to `d3mlx/data/stories/tokenizer.json`.

    python -m d3mlx.research.builds.tokenizer [--words FILE] [--entries N] [--out FILE]

It learns from training problems and from a list of English words, so that unknown words have few tokens. The list is
Debian's package wamerican, which is made from SCOWL by Kevin Atkinson. Its license permits use, copies, changes and
distribution with the copyright notice, and its sources are in the public domain or have the same license.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from d3mlx.data.stories.stories import problem
from d3mlx.data.stories.tokenizer import PATH, PIECES
from d3mlx.data.stories.words import is_held_out
from d3mlx.research.script import script

ENTRIES = 1536
PROBLEMS = 20000
WORDS = Path("/usr/share/dict/american-english")


def texts(words: Path, problems: int) -> Iterator[str]:
    """Yield the training texts: problems, and English words after a space."""
    for i in range(problems):
        drawn = problem(i, seed=1)
        yield drawn.question
        yield drawn.solution
    for line in words.read_text().splitlines():
        if line.isascii() and line.isalpha() and not is_held_out(line):
            yield f" {line}"


def train(words: Path, entries: int, problems: int) -> Tokenizer:
    """Return a byte-level BPE tokenizer with this number of entries, without special tokens."""
    tokenizer = Tokenizer(models.BPE())
    spelled = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces = pre_tokenizers.Split(Regex(PIECES), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, spelled])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=entries, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts(words, problems), trainer)
    return tokenizer


def build(
    words: Annotated[Path, typer.Option(help="List of English words, one per line.")] = WORDS,
    entries: Annotated[int, typer.Option(min=300, max=2048, help="Entries without special tokens.")] = ENTRIES,
    problems: Annotated[int, typer.Option(min=1, help="Training problems.")] = PROBLEMS,
    out: Annotated[Path, typer.Option(help="The file to write.")] = PATH,
) -> None:
    """Train and write the tokenizer."""
    train(words, entries, problems).save(str(out))
    Console().print(f"Wrote {out}.")


if __name__ == "__main__":
    script(build)
