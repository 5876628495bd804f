"""Files of conversations: JSONL with one conversation per line, as `distill --objective sft` reads them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from d3mlx.data.records import read_rows
from d3mlx.errors import ConfigError, DataError
from d3mlx.files import check_writable, open_locked, write_bytes, writing

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
    """A file to which one conversation is saved, again after each turn. Its other lines never change."""

    def __init__(self, path: Path, continues: bool):
        """Read the file, if it exists. continues: save in the place of its last conversation.

        Raises DataError if it is another kind of file, and ConfigError if it cannot be written.
        """
        self.path = path
        check_writable(path)
        with writing(path):
            self.content = path.read_bytes() if path.exists() else b""
        lines = [line for line in self.content.split(b"\n") if line.strip()]
        rows = [self.row_of(line) for line in lines]
        # The fields that a chat does not read, such as an id of the conversation or a name of a message, are kept.
        self.row: dict[str, Any] = rows.pop() if continues else {}
        self.others = lines[: len(rows)]

    def row_of(self, line: bytes) -> dict[str, Any]:
        """Return the object in a line. Raises DataError."""
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise DataError(f"{self.path} does not have one JSON object per line. Save to another file.")
        return row

    def save(self, messages: list[Message]) -> None:
        """Write the conversation as the last line. Raises ConfigError if another program has changed the file."""
        before: list[Any] = self.row.get("messages", [])
        # A system message may be new. The messages of the file follow, then those of this chat.
        new_first = messages[: int(bool(before) and messages[0] != messages_of("", before)[0])]
        self.row = {**self.row, "messages": [*new_first, *before, *messages[len(new_first) + len(before) :]]}
        line = json.dumps(self.row, ensure_ascii=False).encode()
        content = b"".join(each + b"\n" for each in (*self.others, line))
        with writing(self.path):
            lock = open_locked(self.path.resolve().parent, wait=True)
        try:
            now = self.path.read_bytes() if self.path.exists() else b""
            if now != self.content:
                raise ConfigError(f"{self.path} was changed by another program. Save to another file.")
            write_bytes(self.path, content)
        finally:
            os.close(lock)
        self.content = content

    def start_new(self) -> None:
        """Begin a new conversation after the saved one."""
        self.others = [line for line in self.content.split(b"\n") if line.strip()]
        self.row = {}
