"""`d3mlx chat`: a conversation with a model."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from threading import Event
from typing import Annotated, Any

import typer

from d3mlx.chat import Chat
from d3mlx.cli import common
from d3mlx.cli.common import OUTPUT
from d3mlx.cli.decoder_flags import takes_decoder_options
from d3mlx.cli.render.consumers import follow
from d3mlx.cli.render.printer import Screen
from d3mlx.cli.render.turn import LiveTurn, PlainTurn, StopWhenSet
from d3mlx.cli.session import ModelFlags, Session, check_settings, start
from d3mlx.cli.standard_input import LineReader
from d3mlx.data.conversations import ConversationFile, Message, last_conversation
from d3mlx.errors import ConfigError, D3Error
from d3mlx.signals import interrupts_noted, interrupts_raised

COMMANDS = """q        leave, as Ctrl-D does
r        begin a new conversation
h        show this help
\"\"\"      begin and end a message of several lines; a line may also end with \\
Ctrl-C   end the answer"""

LEAVE = "The line is dropped. Type q or press Ctrl-D to leave."


class Terminal:
    """The conversation on standard input and output."""

    def __init__(self, session: Session, chat: Chat, file: ConversationFile | None):
        self.session, self.chat, self.file = session, chat, file
        questions = [message["content"] for message in chat.messages if message["role"] == "user"]
        self.reader = LineReader(questions)
        self.interrupted = Event()
        self.notes = Screen(stderr=not self.reader.interactive)

    def note(self, text: str) -> None:
        """Write a line for the user that is not part of the conversation."""
        self.notes.print(text, style="grey50", markup=False, soft_wrap=True)

    def run(self) -> None:
        """Read messages and answer them until the user leaves."""
        if not self.reader.interactive:
            with contextlib.suppress(EOFError):
                while self.react(*self.reader.message()):
                    pass
            return
        self.note(f"{self.session.title}. Type h for help, q to leave.")
        if self.chat.turns:
            self.note(f"This continues a conversation of {len(self.chat.messages)} messages.")
        # Ctrl-C may come at any time, also between two statements, and must not end the chat.
        with interrupts_noted() as self.interrupted:
            while self.turn():
                self.interrupted.clear()

    def turn(self) -> bool:
        """Read a message in a terminal and react to it. An error is shown. Return whether the chat goes on."""
        try:
            with interrupts_raised():
                message = self.reader.message()
            return self.react(*message)
        except EOFError:
            self.notes.print()
            return False
        except KeyboardInterrupt:
            self.notes.print()
            self.note(LEAVE)
        except D3Error as error:
            self.note(f"Error: {error}")
        return True

    def react(self, text: str, may_be_command: bool) -> bool:
        """Run a command or write an answer. Return whether the chat goes on."""
        command = text.strip() if may_be_command else ""
        if command == "h":
            self.note(COMMANDS)
        elif command == "r":
            self.chat.reset()
            if self.file is not None:
                self.file.start_new()
            self.note("This is a new conversation.")
        elif command != "q" and text.strip():
            self.answer(text)
        return command != "q"

    def answer(self, text: str) -> None:
        """Write the answer to a message, add both to the conversation, and save it."""
        before = self.chat.left_out
        generation = self.chat.ask(text)
        if self.chat.left_out > before:
            self.note(
                f"The conversation exceeds the context of {self.session.model.args.context} tokens. The model does "
                f"not read its first {self.chat.left_out} messages."
            )
        if self.reader.interactive:
            view = LiveTurn(generation, self.session.tokenizer, self.session.title)
            with contextlib.suppress(KeyboardInterrupt):
                follow(generation, [view, StopWhenSet(self.interrupted)])
        else:
            follow(generation, [PlainTurn()])
        if not generation.text:
            self.note("There is no answer, so your message is not kept.")
            return
        if generation.done and generation.cut_holes:
            self.note(f"The answer has no end within {generation.max_tokens} tokens. It may be cut.")
        self.chat.keep(text, generation)
        if self.file is not None:
            self.file.save(self.chat.messages)
        if self.chat.nearly_full:
            self.note(
                "The context is full. From the next message on, the model does not read the oldest messages. Type r "
                "to begin a new conversation."
            )


def beginning(system: str | None, resume: Path | None) -> list[Message]:
    """Return the messages before the first turn. Raises DataError or ConfigError."""
    messages = [] if resume is None else last_conversation(resume)
    if system is None:
        return messages
    if messages and messages[0]["role"] == "system":
        raise ConfigError(f"The conversation in {resume} has its own system message. Run without --system-prompt.")
    return [{"role": "system", "content": system}, *messages]


@takes_decoder_options()
def chat(
    model: common.Model = None,
    adapter_path: common.AdapterPath = None,
    revision: common.Revision = None,
    system: common.System = None,
    max_tokens: common.MaxTokens = None,
    decoder: common.DecoderName = None,
    *,
    options: dict[str, Any],
    recommended: common.UseRecommended = False,
    approximate_cache: Annotated[
        bool,
        typer.Option(
            "--approximate-cache",
            help="Reuse the cache of earlier turns with LLaDA, iLLaDA and Dream. Answers may be worse. Block-causal "
            "models always reuse it, without a difference.",
            rich_help_panel=common.DECODER,
        ),
    ] = False,
    temperature: common.Temperature = None,
    top_p: common.TopP = None,
    top_k: common.TopK = None,
    end_penalty: common.EndPenalty = None,
    seed: common.Seed = 0,
    save: Annotated[
        Path | None,
        typer.Option(
            help="Save the conversation as the last line of this JSONL file. `d3mlx distill --objective sft` reads it.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue the last conversation of this JSONL file.", rich_help_panel=OUTPUT)
    ] = None,
) -> None:
    """Begin a conversation with a model.

    Type a message and press Return. In the chat, q leaves, r begins a new conversation, and h shows help. Ctrl-C ends
    the answer, and Ctrl-D leaves. In a pipe, every line of standard input is a message.

    Example: d3mlx chat --model GSAI-ML/LLaDA-8B-Instruct
    """
    settings = common.DecodeSettings(decoder, temperature, top_p, end_penalty, max_tokens, options, top_k, seed)
    check_settings(settings)
    if sys.stdin is None:
        raise ConfigError("Standard input is closed. Open it, or redirect a file to it.")
    messages = beginning(system, resume)
    same = save is not None and resume is not None and save.resolve() == resume.resolve()
    file = None if save is None else ConversationFile(save, continues=same)
    session = start(ModelFlags(model, adapter_path, revision), settings, recommended)
    conversation = Chat(
        session.model,
        session.tokenizer,
        session.decoder,
        max_tokens=session.settings.max_tokens,
        sampling=session.sampling,
        messages=messages,
        approximate_cache=approximate_cache,
    )
    Terminal(session, conversation, file).run()
