"""What a task is: problems to ask, and a verdict on what comes back. It knows nothing of models and decoders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from d3mlx.errors import ConfigError, DataError
from d3mlx.evaluate.fields import Fields, Row, rows_with
from d3mlx.evaluate.sandbox import Sandbox

if TYPE_CHECKING:
    from d3mlx.prompt import Prompt


@dataclass(frozen=True)
class Ask:
    """What a model is asked.

    text: the prompt, or with `chat` the user's message. opening: words that the answer begins with; they belong to the
    prompt. before: with `chat`, questions and their answers as earlier turns.
    """

    text: str
    chat: bool
    opening: str = ""
    before: tuple[tuple[str, str], ...] = ()

    def prompt(self, tokenizer: Any) -> Prompt:
        """As `generate` takes it. Raises ConfigError if there is no chat template to put it through."""
        if not self.chat:
            return self.text + self.opening
        if tokenizer.chat_template is None:
            raise ConfigError("This model has no chat template; ask it plain text with --no-apply-chat-template.")
        turns = [{"user": question, "assistant": answer} for question, answer in self.before]
        messages = [{"role": role, "content": text} for turn in turns for role, text in turn.items()]
        messages.append({"role": "user", "content": self.text})
        if not self.opening:
            return messages
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) + self.opening


@dataclass(frozen=True)
class Verdict:
    """correct: by the task's own measure. strict: by its published strict form, where it has one besides.

    answer: what was read out of the text, None where there was nothing. why: what a failed program failed of.
    """

    correct: bool
    answer: str | None = None
    strict: bool | None = None
    why: str | None = None


def tested(sandbox: Sandbox, with_tests: Callable[[str], str], program: str, published: str) -> Verdict:
    """Return the verdict on a program, whose `strict` is that on the program that the published rules cut out."""
    outcome = sandbox.run(with_tests(program))
    strict = outcome if published == program else sandbox.run(with_tests(published))
    return Verdict(outcome.passed, program, strict.passed, outcome.why)


@dataclass(frozen=True)
class TaskOptions:
    """What a user may say of a task; None takes what was published for the model's family.

    data, shots_data: JSONL files of the problems and of the worked examples before each. shots: number of examples.
    chat: ask through the chat template. allow_code: programs that the model writes may be run.
    """

    data: Path | None = None
    shots_data: Path | None = None
    shots: int | None = None
    chat: bool | None = None
    allow_code: bool = False


class Task(Protocol):
    """Problems by index. `size` is their number, None where they are generated without end."""

    name: str
    size: int | None
    stop: tuple[str, ...]

    def ask(self, index: int) -> Ask: ...

    def score(self, index: int, text: str) -> Verdict:
        """Judge an answer's text, which ends before the first stop text."""
        ...


def problems(name: str, options: TaskOptions, fields: Fields) -> list[Row]:
    """The rows of --data. Raises ConfigError where none is given, DataError for a file that will not do."""
    if options.data is None:
        wanted = ", ".join(names for names in fields if not names.endswith("?")).replace("|", " or ")
        raise ConfigError(f"{name} reads its problems from --data FILE.jsonl, whose rows have {wanted}.")
    return rows_with(options.data, fields)


def examples(name: str, options: TaskOptions, fields: Fields, default: int) -> list[Row]:
    """The first rows of --shots-data, as many as there are worked examples before each problem."""
    shots = number_of_examples(options, default)
    if shots == 0:
        if options.shots_data is not None:
            raise ConfigError(f"{name} shows no worked example here; say how many with --num-fewshot.")
        return []
    if options.shots_data is None:
        raise ConfigError(
            f"{name} shows {shots} worked examples, the first rows of --shots-data FILE.jsonl; "
            "give one, or --num-fewshot 0."
        )
    rows = rows_with(options.shots_data, fields)
    if len(rows) < shots:
        raise DataError(f"{options.shots_data} has {len(rows)} rows, but {shots} worked examples are wanted.")
    return rows[:shots]


def number_of_examples(options: TaskOptions, default: int) -> int:
    """Raises ConfigError for a negative number."""
    shots = default if options.shots is None else options.shots
    if shots < 0:
        raise ConfigError(f"The number of worked examples must be 0 or more, not {shots}.")
    return shots


def no_examples(name: str, options: TaskOptions) -> None:
    """Raise ConfigError if examples are wanted of a task that has none."""
    if options.shots or options.shots_data is not None:
        raise ConfigError(f"{name} shows no worked examples; leave out --num-fewshot and --shots-data.")
