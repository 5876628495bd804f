"""How a turn of a chat looks: the live view while the answer resolves, then its plain text."""

from __future__ import annotations

import sys
from threading import Event
from typing import Any

from rich.text import Text

from d3mlx import Generation, Step
from d3mlx.cli.render.consumers import Plain, Report, forwards_text
from d3mlx.cli.render.live import LiveView
from d3mlx.terminal import printable


class LiveTurn(LiveView):
    """Consumer that shows the canvas while it resolves, and leaves the text of the answer, which can be copied."""

    def __init__(self, generation: Generation, tokenizer: Any, title: str):
        super().__init__(generation, tokenizer, title)
        self.generation = generation

    def finish(self, report: Report) -> None:
        self.leave()
        stats = report.stats
        figures = f"{forwards_text(stats)}, {stats.tokens_per_forward:.1f} tokens/forward, {report.seconds:.1f} s"
        self.console.print(Text(figures, style="grey50"))

    def close(self) -> None:
        if self.live is not None:
            self.leave()
            self.console.print(Text("Interrupted.", style="grey50"))

    def leave(self) -> None:
        """Replace the view by the text."""
        self.stop()
        self.console.print(Text(printable(self.generation.text)), soft_wrap=True)


class PlainTurn(Plain):
    """Consumer that streams the text of an answer to standard output."""

    def finish(self, report: Report) -> None:
        sys.stdout.write("\n")
        sys.stdout.flush()


class StopWhenSet:
    """Consumer that ends a run after the step in which an event was set. It raises KeyboardInterrupt."""

    def __init__(self, event: Event):
        self.event = event

    def start(self) -> None:
        pass

    def step(self, step: Step) -> None:
        if self.event.is_set():
            raise KeyboardInterrupt

    def finish(self, report: Report) -> None:
        pass

    def close(self) -> None:
        pass
