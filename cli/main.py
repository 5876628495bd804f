"""The `d3mlx` command: its commands, and one sentence for everything that goes wrong."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from itertools import takewhile
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from d3mlx.errors import ConfigError, D3Error
from d3mlx.version import VERSION

MANUAL = """Diffusion language models on Apple silicon: LLaDA, Dream and their d3LLM students, decoded as published.

A diffusion language model starts from a canvas of masked tokens and commits several of them in every forward. d3mlx
runs such checkpoints with MLX and shows the canvas while it resolves.

[bold]Examples[/bold]

  d3mlx generate "Anna has 3 bags with 12 apples in each. How many apples are there?"

  d3mlx generate "Why is the sky blue?" --model GSAI-ML/LLaDA-8B-Instruct

  d3mlx generate - --model Dream-org/Dream-v0-Instruct-7B --decoder fast-dllm --cache prefix < question.txt

  d3mlx info GSAI-ML/LLaDA-8B-Instruct

  d3mlx convert --hf-path GSAI-ML/LLaDA-8B-Instruct --mlx-path llada-4bit -q

  d3mlx trajectories runs/teacher --model GSAI-ML/LLaDA-8B-Instruct --data prompts.jsonl

  d3mlx distill --model path/to/LLaDA-8B-4bit --data runs/teacher --grad-checkpoint

  d3mlx eval --task embedded --decoder d3llm --thresholds 0.1,0.3,0.5 --count 200 --plot curve.svg

  d3mlx compare runs/embedded-d3llm runs/embedded-fast-dllm

  d3mlx bench --shape llada-8b --q-bits 4

[bold]Environment[/bold]

HF_HOME, HF_TOKEN and HF_HUB_OFFLINE steer downloads as in every Hugging Face tool. NO_COLOR turns colors off.

[bold]Exit status[/bold]

0 done, 1 the request cannot be met (one sentence says why), 2 the command line cannot be read, 130 interrupted.
"""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def flowing(text: str) -> str:
    """Paragraphs as one line each, which the terminal breaks where it ends; indented lines stay as they are."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(p if p.startswith(" ") else " ".join(p.split("\n")) for p in paragraphs)


COMMANDS = {
    "demo": ("d3mlx.cli.demo:demo", "Watch three decoders solve a fresh problem."),
    "generate": ("d3mlx.cli.generate:generate", "Generate text and watch it resolve."),
    "decoders": ("d3mlx.cli.decoders:decoders", "List the decoders, or every option of one."),
    "info": ("d3mlx.cli.info:info", "Show what a checkpoint is, without loading its weights."),
    "convert": ("d3mlx.cli.convert:convert", "Convert a checkpoint to MLX, quantized or not, in little memory."),
    "trajectories": ("d3mlx.cli.trajectories:trajectories", "Record a teacher's decodes for distillation."),
    "distill": ("d3mlx.cli.distill:distill", "Train LoRA adapters, or all weights, for decoding in parallel."),
    "fuse": ("d3mlx.cli.fuse:fuse", "Fold adapters into a model's weights."),
    "eval": ("d3mlx.cli.eval:evaluate", "Measure accuracy and parallelism of a model on a task."),
    "compare": ("d3mlx.cli.compare:compare", "Compare evaluations of one task."),
    "bench": ("d3mlx.cli.bench:bench", "Measure this machine: forwards by their rows, prefill, whole answers."),
}
"""Where each command is, and the first sentence of its help: it is imported when it is used."""


class LazyCommands(TyperGroup):
    """The commands of `COMMANDS`. Listing them imports none, so `d3mlx --help` needs no MLX."""

    def __init__(self, **attributes: Any):
        super().__init__(**attributes)
        # Typer looks for similar names here when a command is unknown.
        self.commands = {name: TyperCommand(name, help=summary) for name, (_, summary) in COMMANDS.items()}

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command for the list, with its first sentence and no parameters; None for an unknown name."""
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name, the command as it runs, and its arguments."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and load_command(str(name)), rest


def command_function(name: str) -> Callable[..., None]:
    """Import a command and return its function; a flag of decoders is a parameter of it as they are registered now."""
    module, attribute = COMMANDS[name][0].split(":")
    command: Any = getattr(import_module(module), attribute)
    function: Callable[..., None] = command.function() if hasattr(command, "function") else command
    return function


OPTION = re.compile(r"--?[A-Za-z][\w-]*(=.*)?", re.DOTALL)
"""What an argument looks like that can be an option: a text such as `-5 + 3` does not."""


class Command(TyperCommand):
    """A command whose arguments may begin with a dash, if they cannot be meant as an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        valued = {
            name
            for parameter in self.get_params(ctx)
            if isinstance(parameter, TyperOption) and not parameter.is_flag
            for name in parameter.opts
        }
        return super().parse_args(ctx, texts_last(args, valued))


def texts_last(args: list[str], valued: set[str]) -> list[str]:
    """Return arguments with the texts that begin with a dash after `--`.

    valued: options that take the argument after them, whatever it looks like.
    """
    if "--" in args:
        return args
    others: list[str] = []
    texts: list[str] = []
    for before, arg in zip(["", *args], args, strict=False):
        text = arg.startswith("-") and arg != "-" and before not in valued and not OPTION.fullmatch(arg)
        (texts if text else others).append(arg)
    return [*others, "--", *texts] if texts else args


def load_command(name: str) -> Any:
    """Return a command as Typer runs it."""
    function = command_function(name)
    single = typer.Typer(rich_markup_mode="rich", add_completion=False, pretty_exceptions_enable=False)
    single.command(name, cls=Command, help=flowing(function.__doc__ or ""))(function)
    return typer.main.get_command(single)


app = typer.Typer(
    cls=LazyCommands,
    name="d3mlx",
    help=flowing(MANUAL),
    rich_markup_mode="rich",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(wanted: bool) -> None:
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
    """Options before the command."""


def sentence(error: BaseException) -> str:
    """What a person needs to know of an error."""
    if isinstance(error, D3Error):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        file = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{file}."
    first = str(error).splitlines()[0] if str(error) else "no further words"
    return f"Unexpected {type(error).__name__}: {first}. Run again with --debug before the command to see where."


def abandon_output() -> None:
    """Drop what standard output could not take: Python would try again at its end, complain, and change the status."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run() -> None:
    """Entry point: run the command line, turn every failure into one sentence and an exit status."""
    debug = "--debug" in takewhile(lambda argument: argument.startswith("-"), sys.argv[1:])
    if sys.stdin is None:
        # A file that is opened next would get the number of standard input, which some libraries take for an error.
        os.open(os.devnull, os.O_RDONLY)
    # The default handler, also where a shell started us in the background with interrupts ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Ends like an exception, so that whatever is half-written goes.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        if sys.stdout is None:
            raise ConfigError("Standard output is closed; there is nowhere to write to.")
        for stream in (sys.stdout, sys.stderr):
            # A terminal that knows ASCII only shows what it can.
            if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != "utf-8":
                stream.reconfigure(errors="backslashreplace")
        app()
    except KeyboardInterrupt:
        # Before a command has begun: from there on Typer turns it into an exit.
        sys.stderr.write("Interrupted.\n")
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            sys.stderr.write("Interrupted.\n")
        raise
    except Exception as error:
        if debug:
            traceback.print_exc()
        sys.stderr.write(f"Error: {sentence(error)}\n")
        abandon_output()
        sys.exit(1)
