"""`d3mlx infill`: fill the holes of a text."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from d3mlx.cli import common
from d3mlx.cli.common import MODEL, OUTPUT, notice
from d3mlx.cli.decoder_flags import takes_decoder_options
from d3mlx.cli.render.consumers import Consumer, JsonLines, Report, follow
from d3mlx.cli.render.live import UNICODE, LiveView
from d3mlx.cli.render.printer import Screen
from d3mlx.cli.session import ModelFlags, check_settings, start
from d3mlx.cli.standard_input import MOST_BYTES, read_standard_input
from d3mlx.data.records import check_file
from d3mlx.document import Document, filled_source
from d3mlx.errors import ConfigError, DataError
from d3mlx.files import check_writable, write_bytes
from d3mlx.generation import Generation
from d3mlx.request import Step
from d3mlx.terminal import printable, write


class LiveInfill(LiveView):
    """Consumer that shows the text while it resolves, and leaves the finished text, which can be copied.

    silent: leave only the statistics.
    """

    def __init__(self, generation: Generation, tokenizer: Any, title: str, silent: bool):
        super().__init__(generation, tokenizer, title)
        self.silent = silent

    def finish(self, report: Report) -> None:
        self.stop()
        self.view.over = True
        if not self.silent:
            self.console.print(self.view.text(UNICODE), soft_wrap=True)
        self.console.print("\n".join(report.lines()), markup=False)


class Whole:
    """Consumer that writes the finished text to standard output, if it is not `silent`, and statistics to errors."""

    def __init__(self, generation: Generation, silent: bool):
        self.generation, self.silent = generation, silent

    def start(self) -> None:
        pass

    def step(self, step: Step) -> None:
        pass

    def finish(self, report: Report) -> None:
        if not self.silent:
            write(sys.stdout, self.generation.text)
            sys.stdout.flush()
        write(sys.stderr, "\n".join(["=" * 10, *report.lines()]) + "\n")

    def close(self) -> None:
        pass


def read_text(file: str) -> str:
    """Return the text of a file, or of standard input for `-`. Line ends stay as they are. Raises DataError."""
    if file == "-":
        content = read_standard_input()
    else:
        check_file(Path(file))
        if Path(file).stat().st_size > MOST_BYTES:
            raise DataError(f"{file} has more than {MOST_BYTES:,} bytes. Give a smaller file.")
        content = Path(file).read_bytes()
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise DataError(f"{'Standard input' if file == '-' else file} is not UTF-8 text. Give a text file.") from None


def show_difference(before: str, after: str, name: str) -> None:
    """Print the lines that change, with the unchanged lines around them."""
    console = Screen()
    styles = {"+": "green", "-": "red", "@": "cyan"}
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), name, name, lineterm="")
    for line in lines:
        console.print(Text(line, styles.get(line[0], "")), soft_wrap=True)


def agrees(question: str) -> bool:
    """Return whether the user agrees to a question. The end of the input is a no."""
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        print()  # noqa: T201
        return False


def replace_file(path: Path, before: str, after: str, ask: bool) -> None:
    """Write the filled text to its file. Raises DataError if the file has changed since it was read.

    ask: show the difference first, and write only if the user agrees.
    """
    if ask:
        show_difference(before, after, str(path))
        if not agrees(f"Write {printable(str(path))}? [y/N] "):
            notice(f"{path} is unchanged.")
            return
    if not path.is_file() or path.read_bytes() != before.encode():
        raise DataError(f"{path} has changed while its holes were filled. It was not written. Run the command again.")
    write_bytes(path, after.encode())


@takes_decoder_options()
def infill(
    file: Annotated[str, typer.Argument(help="File with holes. - reads standard input.", show_default=False)],
    model: common.Model = None,
    adapter_path: common.AdapterPath = None,
    revision: common.Revision = None,
    question: Annotated[
        str | None,
        typer.Option(
            "--question",
            "-q",
            help="Question of the user. The text is then the answer, in the chat template.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    max_tokens: common.MaxTokens = None,
    decoder: common.DecoderName = None,
    *,
    options: dict[str, Any],
    recommended: common.UseRecommended = False,
    temperature: common.Temperature = None,
    top_p: common.TopP = None,
    top_k: common.TopK = None,
    end_penalty: common.EndPenalty = None,
    seed: common.Seed = 0,
    in_place: Annotated[
        bool,
        typer.Option(
            "--in-place",
            "-i",
            help="Replace the file. A terminal shows the changed lines first and asks.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="With --in-place, do not ask.", rich_help_panel=OUTPUT)
    ] = False,
    json_lines: Annotated[
        bool,
        typer.Option("--json", help="Write one JSON object per step, then the result.", rich_help_panel=OUTPUT),
    ] = False,
) -> None:
    """Fill the holes of a text.

    A hole is written [MASK:12], with the largest number of its tokens. [MASK] is a hole of any length up to
    --max-tokens. It needs a model that was trained to end a hole; others repeat the text after it. \\\\[MASK] is
    literal text. All holes resolve together, and the model sees the text on both sides of them.

    In a terminal, d3mlx shows the text while it resolves. In a pipe, it writes the finished text.

    Example: d3mlx infill letter.txt --in-place --model GSAI-ML/LLaDA-8B-Instruct
    """
    if in_place and file == "-":
        raise ConfigError("--in-place cannot replace standard input. Give a file.")
    if in_place and json_lines:
        raise ConfigError("Give --in-place or --json, not both.")
    if yes and not in_place:
        raise ConfigError("--yes needs --in-place.")
    settings = common.DecodeSettings(decoder, temperature, top_p, end_penalty, max_tokens, options, top_k, seed)
    check_settings(settings)
    text = read_text(file)
    document = Document.parse(text, None if question is None else [{"role": "user", "content": question}])
    if in_place:
        check_writable(Path(file))
    session = start(ModelFlags(model, adapter_path, revision), settings, recommended)
    generation = Generation(
        session.model,
        session.tokenizer,
        document,
        session.decoder,
        max_tokens=session.settings.max_tokens,
        sampling=session.sampling,
    )
    config = session.config(file=file, question=question, policies=generation.decoder, max_tokens=generation.max_tokens)
    consumers: list[Consumer]
    if json_lines:
        consumers = [JsonLines(config, generation)]
    elif sys.stdout.isatty():
        consumers = [LiveInfill(generation, session.tokenizer, session.title, in_place)]
    else:
        consumers = [Whole(generation, in_place)]
    follow(generation, consumers)
    for number in generation.cut_holes if not json_lines else []:
        notice(f"Hole {number} has no end within {generation.max_tokens} tokens. Its text may be cut.")
    if in_place:
        filled = filled_source(text, [fill.text for fill in generation.fills])
        replace_file(Path(file), text, filled, sys.stdout.isatty() and sys.stdin.isatty() and not yes)
