"""The `d3mlx` program: its list of commands, and one sentence for every error."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import takewhile
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from d3mlx.errors import ConfigError, D3Error, D3Warning, first_line, is_panic
from d3mlx.signals import ENDING
from d3mlx.terminal import shown_on, write
from d3mlx.version import VERSION

MANUAL = """Run diffusion language models on Apple silicon: LLaDA, Dream, d3LLM, SDAR and others.

A diffusion language model starts from a canvas of masked tokens and commits several of them in every forward. d3mlx
shows the canvas while it resolves.
"""

EPILOG = """[bold]Examples[/bold]

  d3mlx demo

  d3mlx generate "Why is the sky blue?" --model GSAI-ML/LLaDA-8B-Instruct

  d3mlx convert --hf-path GSAI-ML/LLaDA-8B-Instruct --mlx-path llada-4bit -q

  d3mlx eval --task embedded --thresholds 0.1,0.3,0.5 --count 200

[bold]Environment[/bold]

HF_HOME, HF_TOKEN and HF_HUB_OFFLINE control downloads, as in other Hugging Face tools. NO_COLOR turns colors off.

[bold]Exit status[/bold]

0 success, 1 error, 2 invalid command line, 130 interrupted.
"""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as in shells."""


def flowing(text: str) -> str:
    """Return `text` with each paragraph on one line, so that the terminal wraps it. Indented lines stay."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(p if p.startswith(" ") else " ".join(p.split("\n")) for p in paragraphs)


@dataclass(frozen=True)
class Entry:
    """A command in the list: its module and function, its panel, and the first sentence of its help."""

    target: str
    panel: str
    summary: str


GENERATE, MODELS, DISTILL, MEASURE = "Generate text", "Prepare models", "Distill a faster student", "Measure"

COMMANDS = {
    "demo": Entry("d3mlx.cli.demo:demo", GENERATE, "Watch three decoders solve a new problem."),
    "generate": Entry("d3mlx.cli.generate:generate", GENERATE, "Generate text and watch it resolve."),
    "chat": Entry("d3mlx.cli.chat:chat", GENERATE, "Begin a conversation with a model."),
    "infill": Entry("d3mlx.cli.infill:infill", GENERATE, "Fill the holes of a text."),
    "replay": Entry("d3mlx.cli.replay:replay", GENERATE, "Make a page that plays a recorded run."),
    "serve": Entry("d3mlx.cli.serve:serve", GENERATE, "Serve a model to clients of OpenAI's API."),
    "decoders": Entry("d3mlx.cli.decoders:decoders", GENERATE, "List the decoders and their options."),
    "info": Entry("d3mlx.cli.info:info", MODELS, "Describe a checkpoint without loading its weights."),
    "convert": Entry("d3mlx.cli.convert:convert", MODELS, "Convert a Hugging Face checkpoint to MLX and quantize it."),
    "trajectories": Entry("d3mlx.cli.trajectories:trajectories", DISTILL, "Record how a teacher decodes."),
    "distill": Entry("d3mlx.cli.distill:distill", DISTILL, "Train a model to decode in fewer forwards."),
    "fuse": Entry("d3mlx.cli.fuse:fuse", DISTILL, "Merge adapters into the weights of a model."),
    "eval": Entry("d3mlx.cli.eval:evaluate", MEASURE, "Measure accuracy and parallelism on a task."),
    "compare": Entry("d3mlx.cli.compare:compare", MEASURE, "Compare evaluations of one task."),
    "doctor": Entry("d3mlx.cli.doctor:doctor", MEASURE, "Check this installation and this machine."),
    "bench": Entry("d3mlx.cli.bench:bench", MEASURE, "Measure the speed of this machine, or predict another."),
}
"""The commands in the order of the help page. A command is imported when it is used."""


class LazyCommands(TyperGroup):
    """The commands of `COMMANDS`. The list imports none of them, so `d3mlx --help` needs no MLX."""

    def __init__(self, **attributes: Any):
        super().__init__(**attributes)
        # Typer looks for similar names here when a command is unknown.
        self.commands = {
            name: TyperCommand(name, help=entry.summary, rich_help_panel=entry.panel)
            for name, entry in COMMANDS.items()
        }

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of the help page."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command for the list, without parameters, or None for an unknown name."""
        return self.commands.get(cmd_name)

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters as the help page shows them."""
        return [shown_plainly(parameter) for parameter in super().get_params(ctx)]

    def invoke(self, ctx: Any) -> Any:
        """Run a command. An error about the command line is printable on a terminal."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if isinstance(message := getattr(error, "message", None), str):
                error.message = shortened(shown_on(sys.stderr, message))  # type: ignore[attr-defined]
            raise

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name, the imported command, and its arguments."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and load_command(str(name)), rest


def command_function(name: str) -> Callable[..., None]:
    """Import a command and return its function, with a parameter for each option of the registered decoders."""
    module, attribute = COMMANDS[name].target.split(":")
    command: Any = getattr(import_module(module), attribute)
    function: Callable[..., None] = command.function() if hasattr(command, "function") else command
    return function


OPTION = re.compile(r"--?[A-Za-z][\w-]*(=.*)?", re.DOTALL)
"""Form of an argument that can be an option. A text such as `-5 + 3` has another form."""


def shown_plainly(parameter: Any) -> Any:
    """Return a parameter with a plain help: flags without a type, ranges as numbers, defaults as [default: 16]."""
    if isinstance(parameter, TyperOption) and parameter.is_flag:
        parameter.metavar = ""
    elif getattr(parameter, "_get_number_range_help_str", lambda: None)():
        # Ranges contain every number that makes sense. An error names them.
        parameter.metavar = f"<{parameter.bare_type()}>"
        parameter._get_number_range_help_str = lambda: None  # type: ignore[method-assign]
    if isinstance(parameter.show_default, str):
        # Typer would put it in parentheses, for a default that is computed.
        parameter.help = f"{parameter.help} [dim]\\[default: {parameter.show_default}][/]"
        parameter.show_default = False
    return parameter


class Command(TyperCommand):
    """A command with texts as arguments. A text may begin with a dash if it cannot be an option."""

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters as the help page shows them, with --help in the last panel."""
        *parameters, help_option = [shown_plainly(parameter) for parameter in super().get_params(ctx)]
        help_option.rich_help_panel = getattr(parameters[-1], "rich_help_panel", None)
        return [*parameters, help_option]

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Parse the arguments, with texts that begin with a dash after `--`."""
        valued = {
            name
            for parameter in self.get_params(ctx)
            if isinstance(parameter, TyperOption) and not parameter.is_flag
            for name in parameter.opts
        }
        return super().parse_args(ctx, texts_last(args, valued))


def texts_last(args: list[str], valued: set[str]) -> list[str]:
    """Return the arguments with those texts that begin with a dash moved after `--`.

    valued: options with a value. The argument after such an option is never moved.
    """
    if "--" in args:
        return args
    others: list[str] = []
    texts: list[str] = []
    for before, arg in zip(["", *args], args, strict=False):
        text = arg.startswith("-") and arg != "-" and before not in valued and not OPTION.fullmatch(arg)
        (texts if text else others).append(arg)
    return [*others, "--", *texts] if texts else args


LONGEST_WAIT = 86_400
"""Largest number of seconds to wait for the Hub."""


def check_environment() -> None:
    """Raise ConfigError for a variable that the Hub's client cannot read when it is imported."""
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        value = os.environ.get(name)
        try:
            # The client reads it with `int`.
            fits = value is None or 0 <= int(value) <= LONGEST_WAIT
        except ValueError:
            fits = False
        if not fits:
            raise ConfigError(
                f"The environment variable {name} is {value!r}. Use a whole number of seconds from 0 to "
                f"{LONGEST_WAIT:,}, or unset it."
            )


def load_command(name: str) -> Any:
    """Return the command for Typer, with its function and its parameters."""
    check_environment()
    function = command_function(name)
    single = typer.Typer(rich_markup_mode="rich", add_completion=False, pretty_exceptions_enable=False)
    single.command(name, cls=Command, help=flowing(function.__doc__ or ""))(function)
    return typer.main.get_command(single)


app = typer.Typer(
    cls=LazyCommands,
    name="d3mlx",
    help=flowing(MANUAL),
    epilog=EPILOG,
    rich_markup_mode="rich",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(wanted: bool) -> None:
    """Print the version and exit, if it is wanted."""
    if wanted:
        typer.echo(f"d3mlx {VERSION}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=show_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Accept the options before the command."""


def sentence(error: BaseException) -> str:
    """Return one sentence about an error."""
    text = " ".join(description(error).split())
    return shortened(text if text.endswith((".", "!", "?")) else f"{text}.")


def description(error: BaseException) -> str:
    """Return what is wrong and what to do."""
    if isinstance(error, D3Error):
        return str(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocat" in str(error)):
        return "There is not enough memory for this. Use a smaller model, shorter texts or a smaller batch."
    if isinstance(error, RecursionError):
        return "A file or a text is nested too deeply. Check the files of the model and the data."
    if isinstance(error, OSError) and error.strerror:
        file = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{file}."
    if isinstance(error, OSError) and str(error):
        return first_line(error)
    if isinstance(error, ImportError):
        return f"A library cannot be imported: {first_line(error)}. Install d3mlx again."
    if is_panic(error):
        return f"The tokenizer failed: {first_line(error)}. Check the tokenizer's files of the model."
    return f"Unexpected {type(error).__name__}: {first_line(error)}. {TRACEBACK}"


TRACEBACK = "For a traceback, run d3mlx --debug COMMAND."
LONGEST = 1000
"""Largest number of characters of an error."""


def shortened(text: str) -> str:
    """Return a text with its middle left out if it is longer than `LONGEST`. Its end says what to do."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Write a warning for the user as one line, and one of a library as Python does."""
    own = issubclass(category, D3Warning)
    write(sys.stderr, f"Warning: {message}\n" if own else warnings.formatwarning(message, category, filename, lineno))


def abandon_output() -> None:
    """Drop text that cannot be written. Otherwise Python tries again at exit and changes the exit status."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def end_run(number: int, _: Any) -> None:
    """End the run with an exception, so that partial files are removed. A second signal must not disturb this."""
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


def run() -> None:
    """Run the command line. Every error becomes one sentence and an exit status."""
    debug = "--debug" in takewhile(lambda argument: argument.startswith("-"), sys.argv[1:])
    warnings.showwarning = show_warning
    if sys.stdin is None:
        # The next open file would get descriptor 0, which some libraries treat as an error.
        os.open(os.devnull, os.O_RDONLY)
    # A shell starts background jobs with interrupts ignored, so set the handler in any case. nohup ignores SIGHUP.
    for number in ENDING:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end_run)
    try:
        if sys.stdout is None:
            raise ConfigError("Standard output is closed. Open it, or redirect it to a file.")
        for stream in (sys.stdout, sys.stderr):
            # Escape characters that the terminal cannot show, also those of file names that are not UTF-8.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        app()
    except KeyboardInterrupt:
        # This is before the start of a command. After it, Typer turns an interrupt into an exit.
        sys.stderr.write("Interrupted.\n")
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            sys.stderr.write("Interrupted.\n")
        raise
    except BaseException as error:
        # A panic of a library in Rust is not an Exception.
        if debug:
            traceback.print_exc()
        write(sys.stderr, f"Error: {sentence(error)}\n")
        abandon_output()
        sys.exit(1)
