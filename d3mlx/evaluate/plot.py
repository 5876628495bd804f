"""Accuracy over parallelism as an SVG picture, drawn without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 72, 24, 28, 64
LEGEND_ROW, LETTER = 20, 7.2
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5c5c5c")
"""Okabe and Ito's palette, which color-blind people can distinguish."""

SHAPES = ("circle", "square", "diamond", "triangle")
INK, FAINT, PAPER = "#1a1a1a", "#dcdcdc", "#ffffff"
FONT = "font-family='system-ui, -apple-system, Helvetica, Arial, sans-serif'"


@dataclass(frozen=True)
class Mark:
    """A point of a curve. x: parallelism. y: accuracy in percent. low, high: its interval. label: text next to it."""

    x: float
    y: float
    low: float
    high: float
    label: str = ""


@dataclass(frozen=True)
class Curve:
    """The marks of a run."""

    name: str
    marks: Sequence[Mark]


@dataclass(frozen=True)
class Axis:
    """A linear axis from `low` to `high` between the pixels `start` and `end`, with ticks at round numbers."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Return the pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def axis(values: Sequence[float], start: float, end: float, most: float = math.inf) -> Axis:
    """Return an axis that contains all values with a small margin, within 0 and `most`."""
    least, greatest = min(values), max(values)
    room = (greatest - least) * 0.06 or max(abs(greatest) * 0.1, 0.5)
    low, high = max(0.0, least - room), min(most, greatest + room)
    step = round_step((high - low) / 6)
    low, high = math.floor(low / step + 1e-9) * step, min(most, math.ceil(high / step - 1e-9) * step)
    count = int((high - low) / step + 1e-9)
    return Axis(low, high, start, end, tuple(low + i * step for i in range(count + 1)))


def round_step(rough: float) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that is not below `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))


def text(x: float, y: float, content: str, anchor: str = "middle", extra: str = "") -> str:
    """Return a text at a point. extra: further attributes."""
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' {extra}>{escape(content)}</text>"


def line(x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1) -> str:
    """Return a straight line between two points."""
    return f"<path d='M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}' stroke='{color}' stroke-width='{width}' fill='none'/>"


def marker(x: float, y: float, index: int, color: str) -> str:
    """Return the mark of curve `index`, about nine pixels wide."""
    style = f"fill='{color}' stroke='{PAPER}' stroke-width='1.2'"
    shape = SHAPES[index % len(SHAPES)]
    if shape == "circle":
        return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='4.8' {style}/>"
    corners = {
        "square": ((-4.3, -4.3), (4.3, -4.3), (4.3, 4.3), (-4.3, 4.3)),
        "diamond": ((0, -6), (6, 0), (0, 6), (-6, 0)),
        "triangle": ((0, -5.8), (5.4, 4.2), (-5.4, 4.2)),
    }[shape]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f"<polygon points='{points}' {style}/>"


def draw(curves: Sequence[Curve], x_name: str, title: str) -> str:
    """Return the picture: curves with marks and 95 % intervals, axes with ticks, and a legend below.

    Raises ValueError without marks.
    """
    marks = [mark for curve in curves for mark in curve.marks]
    if not marks:
        raise ValueError("there is no point to draw")
    legend = legend_rows([curve.name for curve in curves])
    height = HEIGHT + LEGEND_ROW * len(legend)
    bottom = HEIGHT - BOTTOM
    x = axis([mark.x for mark in marks], LEFT, WIDTH - RIGHT)
    y = axis([value for mark in marks for value in (mark.low, mark.high)], bottom, TOP + 16, most=100.0)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}' "
        f"{FONT} font-size='13' fill='{INK}'>",
        f"<title>{escape(title)}</title>",
        f"<rect width='{WIDTH}' height='{height}' fill='{PAPER}'/>",
        text(LEFT, 22, title, "start", "font-size='15' font-weight='600'"),
        *frame(x, y, x_name),
    ]
    for i, curve in enumerate(curves):
        parts += drawn(curve, i, x, y)
    parts += labels(curves, x, y)
    for row, names in enumerate(legend):
        parts += legend_row(names, HEIGHT + 4 + row * LEGEND_ROW)
    return "\n".join([*parts, "</svg>"]) + "\n"


def frame(x: Axis, y: Axis, x_name: str) -> list[str]:
    """Return the axes with ticks, grid and names."""
    parts = []
    for tick in y.ticks:
        parts.append(line(x.start, y.at(tick), x.end, y.at(tick), FAINT))
        parts.append(text(x.start - 10, y.at(tick) + 4.5, f"{tick:g}", "end"))
    for tick in x.ticks:
        parts.append(line(x.at(tick), y.start, x.at(tick), y.start + 5, INK))
        parts.append(text(x.at(tick), y.start + 21, f"{tick:g}"))
    parts.append(line(x.start, y.start, x.end, y.start, INK))
    parts.append(line(x.start, y.start, x.start, y.end, INK))
    parts.append(text((x.start + x.end) / 2, y.start + 45, x_name))
    middle = (y.start + y.end) / 2
    parts.append(text(20, middle, "accuracy (%)", "middle", f"transform='rotate(-90 20 {middle:.1f})'"))
    return parts


def drawn(curve: Curve, index: int, x: Axis, y: Axis) -> list[str]:
    """Return the line, the intervals and the marks of a curve."""
    color = COLORS[index % len(COLORS)]
    marks = sorted(curve.marks, key=lambda mark: mark.x)
    path = "L".join(f"{x.at(mark.x):.1f} {y.at(mark.y):.1f}" for mark in marks)
    parts = [f"<path d='M{path}' stroke='{color}' stroke-width='2' fill='none' stroke-linejoin='round'/>"]
    for mark in marks:
        at, low, high = x.at(mark.x), y.at(mark.low), y.at(mark.high)
        parts += [line(at, low, at, high, color, 1.3)]
        parts += [line(at - 4, end, at + 4, end, color, 1.3) for end in (low, high)]
    return parts + [marker(x.at(mark.x), y.at(mark.y), index, color) for mark in marks]


Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def labels(curves: Sequence[Curve], x: Axis, y: Axis) -> list[str]:
    """Return the labels of the marks. A label that would cover a mark or another label is left out."""
    taken: list[Box] = []
    for curve in curves:
        for mark in curve.marks:
            taken.append((x.at(mark.x) - 5, y.at(mark.y) - 5, x.at(mark.x) + 5, y.at(mark.y) + 5))
    parts = []
    for i, curve in enumerate(curves):
        for mark in curve.marks:
            wide = len(mark.label) * 6.4
            for right, drop in ((True, -7), (False, -7), (True, 15), (False, 15)):
                at, base = x.at(mark.x) + (8 if right else -8), y.at(mark.y) + drop
                left = at if right else at - wide
                box = (left, base - 10, left + wide, base + 2)
                if left + wide <= WIDTH and not any(overlap(box, other) for other in taken):
                    taken.append(box)
                    style = f"font-size='11' fill='{COLORS[i % len(COLORS)]}' "
                    halo = f"stroke='{PAPER}' stroke-width='3' paint-order='stroke'"
                    parts.append(text(at, base, mark.label, "start" if right else "end", style + halo))
                    break
    return parts


def overlap(a: Box, b: Box) -> bool:
    """Return whether two boxes overlap."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def legend_rows(names: Sequence[str]) -> list[list[tuple[int, str, float]]]:
    """Return the rows of the legend, at most as wide as the picture, each a list of (index, name, x)."""
    rows: list[list[tuple[int, str, float]]] = []
    at = float(WIDTH)
    for i, name in enumerate(names):
        wide = 46 + LETTER * len(name)
        if at + wide > WIDTH - RIGHT:
            rows.append([])
            at = float(LEFT)
        rows[-1].append((i, name, at))
        at += wide
    return rows


def legend_row(names: Sequence[tuple[int, str, float]], y: float) -> list[str]:
    """Return a row of the legend."""
    parts = []
    for i, name, x in names:
        color = COLORS[i % len(COLORS)]
        parts += [line(x, y - 4.5, x + 24, y - 4.5, color, 2), marker(x + 12, y - 4.5, i, color)]
        parts.append(text(x + 31, y, name, "start"))
    return parts
