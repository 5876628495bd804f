"""Command-line flags for the options of decoders. They are made from the declarations of the decoders."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal

import typer

from d3mlx.cli.common import DECODER
from d3mlx.decoding.options import Option, Options, options_of
from d3mlx.decoding.presets import PRESETS


def declarations(classes: dict[str, type[Options]]) -> dict[str, dict[str, Option]]:
    """Return, for each option name, the decoders that have the option and their declarations."""
    declared: dict[str, dict[str, Option]] = {}
    for decoder, kind in classes.items():
        for name, option in options_of(kind).items():
            declared.setdefault(name, {})[decoder] = option
    return declared


def flag_help(by_decoder: dict[str, Option]) -> str:
    """Return the help of a flag. Decoders with the same text share one sentence.

    For an option with choices, the text of a decoder is the list of its choices.
    """
    if "" in by_decoder:
        return by_decoder[""].help
    decoders_of: dict[str, list[str]] = {}
    for decoder, option in by_decoder.items():
        words = f"{', '.join(option.allowed)}." if isinstance(option.allowed, tuple) and option.kind is str else ""
        decoders_of.setdefault(words or option.help, []).append(decoder)
    return " ".join(f"{', '.join(decoders)}: {text}" for text, decoders in decoders_of.items())


def annotation(by_decoder: dict[str, Option], panel: str) -> Any:
    """Return the type and the description of a flag for Typer. The help page hides options that are not common."""
    first = next(iter(by_decoder.values()))
    kind: Any = first.kind
    metavar = None
    if kind is str:
        allowed = [option.allowed for option in by_decoder.values() if isinstance(option.allowed, tuple)]
        kind = Literal[tuple(dict.fromkeys(choice for choices in allowed for choice in choices))]
        metavar = "<str>"
    hidden = not any(option.common for option in by_decoder.values())
    return Annotated[
        kind | None,
        typer.Option(
            f"--{first.flag}",
            help=flag_help(by_decoder),
            hidden=hidden,
            metavar=metavar,
            show_default=False,
            rich_help_panel=panel,
        ),
    ]


class TakesDecoderOptions:
    """A command whose keyword-only parameter `options` becomes one flag per option of each decoder.

    command: receives the given flags as the dict `options`. classes: the decoders by name; a single one may have the
    empty name. leave_out: options for which the command has its own flags.
    """

    def __init__(self, command: Callable[..., None], classes: dict[str, type[Options]], leave_out: Sequence[str] = ()):
        self.command, self.classes, self.leave_out = command, classes, leave_out

    def function(self) -> Callable[..., None]:
        """Return the function for Typer, with the flags of the decoders that are registered now."""
        flags = {name: by for name, by in declarations(self.classes).items() if name not in self.leave_out}

        def call(**values: Any) -> None:
            options = {name: values.pop(name) for name in flags}
            self.command(**values, options={name: value for name, value in options.items() if value is not None})

        call.__doc__, call.__name__ = self.command.__doc__, self.command.__name__
        call.__annotations__ = {}
        call.__signature__ = inspect.Signature(list(self.parameters(flags)))  # type: ignore[attr-defined]
        return call

    def parameters(self, flags: dict[str, dict[str, Option]]) -> Iterator[inspect.Parameter]:
        """Yield the parameters of the command, with the flags instead of `options`."""
        for parameter in inspect.signature(self.command, eval_str=True).parameters.values():
            if parameter.name != "options":
                yield parameter.replace(kind=parameter.KEYWORD_ONLY)
                continue
            for name, by_decoder in flags.items():
                hint = annotation(by_decoder, DECODER)
                yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)


def takes_decoder_options(
    classes: dict[str, type[Options]] = PRESETS, leave_out: Sequence[str] = ()
) -> Callable[[Callable[..., None]], TakesDecoderOptions]:
    """Declare a command that takes the options of decoders as flags. See `TakesDecoderOptions` for the arguments."""
    return lambda command: TakesDecoderOptions(command, classes, leave_out)
