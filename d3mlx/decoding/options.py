"""Options of decoders. The command line, error texts and `d3mlx decoders` are made from these declarations.

    @dataclass(frozen=True)
    class Greedy(Options):
        threshold: float | None = option("Commit tokens with at least this probability.", 0.9, PROBABILITY)

A field that is None has the default of the model's family.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from inspect import get_annotations
from numbers import Integral, Real
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from d3mlx.errors import ConfigError
from d3mlx.models.traits import Attention, Traits

if TYPE_CHECKING:
    from d3mlx.decoding.decoder import Decoder


LARGEST = 2**31 - 1
"""Largest value of an option, because positions and counts are 32-bit numbers."""


@dataclass(frozen=True)
class Range:
    """The allowed numbers of an option.

    what: a noun with its article and unit. low, high: bounds, which are included unless `open` is True.
    """

    what: str
    low: float = 0
    high: float = math.inf
    open: bool = False

    def __str__(self) -> str:
        return f"{self.what}, {self.bounds}"

    @property
    def bounds(self) -> str:
        """Return the bounds in words."""
        low, high = f"{self.low:,}", f"{self.high:,}"
        if self.high == math.inf:
            return f"above {low}" if self.open else f"{low} or more"
        return f"above {low} and below {high}" if self.open else f"{low} to {high}"

    def check(self, name: str, value: Any) -> None:
        """Raise ConfigError if the value of the option `name` is out of range."""
        inside = self.low < value < self.high if self.open else self.low <= value <= self.high
        if not inside:
            raise ConfigError(f"{name} must be {self}, not {value}.")


def check_choice(name: str, value: object, choices: tuple[Any, ...]) -> None:
    """Raise ConfigError unless `value` is one of the choices of the option `name`."""
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(map(str, choices))}, not {value!r}.")


Default = Any | Callable[[Traits], Any]


@dataclass(frozen=True)
class Option:
    """One option of a decoder.

    help: one sentence. default: a value, or a function from the traits of a family to a value; None if `note` describes
    the default in words. allowed: the allowed numbers or values. common: shown by `d3mlx generate --help`. name,
    kind: name and type of the field; the type is int, float or str.
    """

    help: str
    default: Default
    allowed: Range | tuple[Any, ...] | None
    note: str
    common: bool
    name: str = ""
    kind: type = str

    @property
    def flag(self) -> str:
        """Return the name on the command line, without the two leading dashes."""
        return self.name.replace("_", "-")

    def default_for(self, traits: Traits) -> Any:
        """Return the default for a family."""
        return self.default(traits) if callable(self.default) else self.default

    def check(self, value: Any) -> None:
        """Raise ConfigError if the value has the wrong type or is not allowed."""
        number = {int: Integral, float: Real, str: str}[self.kind]
        if isinstance(value, bool) or not isinstance(value, number):
            article = {int: "a whole number", float: "a number", str: "a text"}[self.kind]
            raise ConfigError(f"{self.flag} must be {article}, not {value!r}.")
        if isinstance(value, Integral) and abs(int(value)) > LARGEST:
            raise ConfigError(f"{self.flag} must be at most {LARGEST:,}.")
        if isinstance(self.allowed, Range):
            self.allowed.check(self.flag, value)
        elif self.allowed is not None:
            check_choice(self.flag, value, self.allowed)


def option(
    help: str,
    default: Default = None,
    allowed: Range | tuple[Any, ...] | None = None,
    *,
    note: str = "",
    common: bool = False,
) -> Any:
    """Declare a field of `Options`. The arguments are those of `Option`; a Literal type gives `allowed` itself."""
    return field(default=None, metadata={"option": Option(help, default, allowed, note, common)})


def options_of(kind: type) -> dict[str, Option]:
    """Return the options of a decoder's class by name, inherited options last."""
    hints = get_type_hints(kind)
    options = {}
    own = get_annotations(kind)
    for each in sorted(fields(kind), key=lambda field: field.name not in own):
        hint = next(part for part in get_args(hints[each.name]) if part is not type(None))
        declared: Option = each.metadata["option"]
        if get_origin(hint) is Literal:
            declared = replace(declared, allowed=get_args(hint))
            hint = type(get_args(hint)[0])
        options[each.name] = replace(declared, name=each.name, kind=hint)
    return options


def check_attention(attention: Attention, traits: Traits) -> None:
    """Raise ConfigError if a decoder for models with this kind of attention cannot run on a family."""
    if attention != traits.attention:
        raise ConfigError(
            f"This decoder is for models with {attention} attention, and {traits.name} has {traits.attention} "
            f"attention. Use decoder {traits.decoder}."
        )


class Options:
    """Base of the options of a decoder: a frozen dataclass whose fields are all made with `option`.

    attention: the kind of attention of the models that the decoder can run on. Raises ConfigError for a value that is
    not allowed.
    """

    attention: ClassVar[Attention] = "bidirectional"

    def build(self, family: str) -> Decoder:
        """Return the decoder for a model family. Raises ConfigError for options that cannot be combined."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        for name, each in options_of(type(self)).items():
            if getattr(self, name) is not None:
                each.check(getattr(self, name))

    def check_attention(self, traits: Traits) -> None:
        """Raise ConfigError if the decoder cannot run on a family."""
        check_attention(self.attention, traits)

    def filled(self, traits: Traits) -> Any:
        """Return an object with every option as an attribute: the given value, or the family's default.

        Raises ConfigError as `check_attention` does.
        """
        self.check_attention(traits)
        return SimpleNamespace(
            **{
                name: each.default_for(traits) if getattr(self, name) is None else getattr(self, name)
                for name, each in options_of(type(self)).items()
            }
        )

    def given(self) -> dict[str, Any]:
        """Return the options that are not None."""
        return {name: getattr(self, name) for name in options_of(type(self)) if getattr(self, name) is not None}
