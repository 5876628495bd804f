"""Options are declared once. Allowed values pass, and all others raise a short error."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3mlx.decoding.options import Option, Options, Range, options_of
from d3mlx.decoding.presets import PRESETS
from d3mlx.errors import ConfigError
from d3mlx.models import families_with

EVERY = [(name, option) for name, kind in PRESETS.items() for option in options_of(kind).values()]


@given(low=st.floats(-10, 10), width=st.floats(0.1, 10), value=st.floats(), is_open=st.booleans())
def test_a_range_accepts_exactly_its_numbers(low: float, width: float, value: float, is_open: bool) -> None:
    allowed, high = Range("a number", low, low + width, is_open), low + width
    inside = low < value < high or (not is_open and value in (low, high))
    if inside:
        allowed.check("x", value)
    else:
        with pytest.raises(ConfigError, match=r"^x must be a number, .* not "):
            allowed.check("x", value)


@pytest.mark.parametrize(("decoder", "option"), EVERY, ids=lambda value: getattr(value, "name", value))
def test_every_declaration_is_complete(decoder: str, option: Option) -> None:
    """A default can also be given, and the error about an invalid value names the option."""
    assert option.help.endswith(".") and option.help[0].isupper()
    kind: Any = PRESETS[decoder]
    defaults = [option.default_for(traits) for traits in families_with(kind.attention)]
    assert option.note or None not in defaults
    for default in defaults:
        if default is not None:
            assert getattr(kind(**{option.name: default}), option.name) == default
            assert type(default) is option.kind
    wrong: list[Any] = [True, [], math.nan] + ([] if option.kind is str else ["x"])
    if isinstance(option.allowed, Range):
        wrong.append(option.kind(option.allowed.low - 1))
    for value in wrong:
        with pytest.raises(ConfigError, match=rf"^{option.flag} must be "):
            kind(**{option.name: value})


@pytest.mark.parametrize("kind", PRESETS.values(), ids=PRESETS)
def test_filled_in_options_build_the_same_decoder(kind: type[Options]) -> None:
    """Options that are given with their default values give the same decoder as options that are not given."""
    for traits in families_with(kind.attention):
        plain, filled = kind(), vars(kind().filled(traits))
        assert set(filled) == set(options_of(kind))
        safe = {"threshold", "block_add", "activation", "recent", "near", "rows", "cache"}
        given = {name: value for name, value in filled.items() if name in safe}
        assert kind(**given).build(traits.name) == plain.build(traits.name)
