"""The interface of a task: problems, and verdicts on answers. It does not depend on models and decoders."""

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
    """A question to a model.

    text: the prompt, or with `chat` the user's message. opening: the beginning of the answer, which is a part of the
    prompt. before: with `chat`, questions and their answers as earlier turns.
    """

    text: str
    chat: bool
    opening: str = ""
    before: tuple[tuple[str, str], ...] = ()

    def prompt(self, tokenizer: Any) -> Prompt:
        """Return the prompt for `generate`. Raises ConfigError if the tokenizer has no chat template but needs one."""
        if not self.chat:
            return self.text + self.opening
        if tokenizer.chat_template is None:
            raise ConfigError("This model has no chat template. Use --no-apply-chat-template for plain text.")
        pairs = [{"user": question, "assistant": answer} for question, answer in self.before]
        messages = [{"role": role, "content": text} for pair in pairs for role, text in pair.items()]
        messages.append({"role": "user", "content": self.text})
        if not self.opening:
            return messages
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) + self.opening


@dataclass(frozen=True)
class Verdict:
    """The verdict on an answer.

    correct: by the task's own measure. answer: the part of the text that was judged, or None. strict: by the published
    strict form, None if the task has only one form. why: reason for the failure of a program.
    """

    correct: bool
    answer: str | None = None
    strict: bool | None = None
    why: str | None = None


def tested(sandbox: Sandbox, with_tests: Callable[[str], str], program: str, published: str) -> Verdict:
    """Return the verdict on `program`. `strict` is the verdict on the program by the published rules."""
    outcome = sandbox.run(with_tests(program))
    strict = outcome if published == program else sandbox.run(with_tests(published))
    return Verdict(outcome.passed, program, strict.passed, outcome.why)


@dataclass(frozen=True)
class TaskOptions:
    """Options of a task. None takes the published value for the model's family.

    data, shots_data: JSONL files of the problems and of the worked examples before each problem. shots: number of
    examples. chat: use the chat template. allow_code: allow to run programs that the model writes.
    """

    data: Path | None = None
    shots_data: Path | None = None
    shots: int | None = None
    chat: bool | None = None
    allow_code: bool = False


class Task(Protocol):
    """Problems by index.

    size: number of problems, None if they are generated without limit. stop: texts that end an answer.
    """

    name: str
    size: int | None
    stop: tuple[str, ...]

    def ask(self, index: int) -> Ask:
        """Return a problem as a question."""
        ...

    def score(self, index: int, text: str) -> Verdict:
        """Judge the text of an answer, which ends before the first stop text."""
        ...


def problems(name: str, options: TaskOptions, fields: Fields) -> list[Row]:
    """Return the rows of --data. Raises ConfigError without --data, and DataError if the file is invalid."""
    if options.data is None:
        wanted = ", ".join(names for names in fields if not names.endswith("?")).replace("|", " or ")
        raise ConfigError(f"{name} needs --data FILE.jsonl with problems. Each record has {wanted}.")
    return rows_with(options.data, fields)


def examples(name: str, options: TaskOptions, fields: Fields, default: int) -> list[Row]:
    """Return the rows of --shots-data that are the worked examples. Raises ConfigError, DataError."""
    shots = number_of_examples(options, default)
    if shots == 0:
        if options.shots_data is not None:
            raise ConfigError(f"{name} has no worked examples by default. Set their number with --num-fewshot.")
        return []
    if options.shots_data is None:
        raise ConfigError(
            f"{name} has {shots} worked examples. Use --shots-data FILE.jsonl for their records, or --num-fewshot 0."
        )
    rows = rows_with(options.shots_data, fields)
    if len(rows) < shots:
        raise DataError(f"{options.shots_data} has {len(rows)} records, but {shots} worked examples are needed.")
    return rows[:shots]


def number_of_examples(options: TaskOptions, default: int) -> int:
    """Return the number of worked examples. Raises ConfigError if it is negative."""
    shots = default if options.shots is None else options.shots
    if shots < 0:
        raise ConfigError(f"The number of worked examples must be 0 or more, not {shots}.")
    return shots


def no_examples(name: str, options: TaskOptions) -> None:
    """Raise ConfigError if the options ask for examples, for a task that has none."""
    if options.shots or options.shots_data is not None:
        raise ConfigError(f"{name} has no worked examples. Leave out --num-fewshot and --shots-data.")
