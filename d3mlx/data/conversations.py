"""Files of conversations: JSONL with one conversation per line, as `distill --objective sft` reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from d3mlx.data.records import read_rows
from d3mlx.errors import ConfigError, DataError
from d3mlx.files import write_text

Message = dict[str, str]


def messages_of(location: str, value: Any) -> list[Message]:
    """Return the chat messages of a row. Raises DataError if one has no role or content."""
    if (
        not isinstance(value, list)
        or not value
        or not all(
            isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in value
        )
    ):
        raise DataError(f"{location}: messages must be a list of objects with a role and a content.")
    return [{"role": m["role"], "content": m["content"]} for m in value]


def last_conversation(path: Path) -> list[Message]:
    """Return the last conversation of a file. Raises DataError if it does not end with an answer."""
    location, row = list(read_rows(path))[-1]
    messages = messages_of(location, row.get("messages"))
    if messages[-1]["role"] != "assistant":
        raise DataError(f"{location}: the conversation does not end with an answer of the assistant. Choose another.")
    return messages


class ConversationFile:
    """A file to which one conversation is saved, again after each turn. The other conversations in it stay."""

    def __init__(self, path: Path, continues: bool):
        """Read the file, if it exists. continues: save in the place of its last conversation.

        Raises DataError if it is another kind of file, and ConfigError if it cannot be written.
        """
        self.path = path
        self.content = ""
        if path.exists():
            list(read_rows(path))
            self.content = path.read_text(encoding="utf-8")
        lines = [line for line in self.content.splitlines() if line.strip()]
        self.others = lines[:-1] if continues else lines
        if not path.parent.is_dir():
            raise ConfigError(f"Folder {path.parent} does not exist. Make it, or save to another file.")

    def save(self, messages: list[Message]) -> None:
        """Write the conversation as the last line. Raises ConfigError if another program has changed the file."""
        now = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        if now != self.content:
            raise ConfigError(f"{self.path} was changed by another program. Save to another file.")
        lines = [*self.others, json.dumps({"messages": messages}, ensure_ascii=False)]
        content = "\n".join(lines) + "\n"
        write_text(self.path, content)
        self.content = content

    def start_new(self) -> None:
        """Begin a new conversation after the saved one."""
        self.others = [line for line in self.content.splitlines() if line.strip()]
