"""`d3mlx chat` in a pipe and in a terminal, and conversations from Python."""

from __future__ import annotations

import io
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from d3mlx import SDAR, Chat, Sampling, generate, load
from d3mlx.data.conversations import ConversationFile
from d3mlx.distill.config import DistillConfig
from d3mlx.distill.examples import load_examples
from d3mlx.errors import ConfigError, PromptError
from tests.cli.conftest import COMMAND
from tests.cli.tmux import Tmux, needs_tmux
from tests.examples import ANSWER, QUESTION
from tests.replicas import fast_dllm_v2_folder, sdar_chat

QUESTIONS = (
    QUESTION,
    "Kim has 40 cards, buys 46 more and gives 31 to Iris. How many cards are left?",
)

ANSWERS = (ANSWER, "The answer is 55.")


@pytest.fixture
def talk(d3mlx: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a chat with lines on standard input."""

    def run(lines: str, *arguments: str) -> Any:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
        return d3mlx("chat", *arguments)

    return run


def saved(path: Path) -> list[list[str]]:
    """Return the texts of the conversations in a file."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [[message["content"] for message in row["messages"]] for row in rows]


def test_every_line_of_a_pipe_is_answered_saved_and_continued(talk: Any, tmp_path: Path) -> None:
    file = tmp_path / "chats.jsonl"
    file.write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n')
    done = talk("\n".join(QUESTIONS) + "\nr\n" + QUESTIONS[0] + "\nq\nunread\n", "--save", str(file))
    first, second, third = done.out.splitlines()
    assert (done.status, first, third) == (0, ANSWERS[0], ANSWERS[0])
    assert second.endswith(ANSWERS[1])
    assert saved(file) == [["a", "b"], [QUESTIONS[0], first, QUESTIONS[1], second], [QUESTIONS[0], third]]

    # A resumed conversation continues in its line. Its second answer is that of one conversation.
    done = talk(QUESTIONS[1], "--resume", str(file), "--save", str(file))
    assert (done.status, done.out) == (0, second + "\n")
    assert saved(file)[2] == [QUESTIONS[0], first, QUESTIONS[1], second]
    other = tmp_path / "other.jsonl"
    assert talk(QUESTIONS[0], "--resume", str(file), "--save", str(other)).status == 0
    assert saved(other)[0][:4] == saved(file)[2]

    # The file is training data.
    model, tokenizer = load()
    examples = load_examples(DistillConfig(data=str(file), objective="sft"), model, tokenizer)
    assert [example.prompt < len(example.ids) for example in examples] == [True] * 3
    assert tokenizer.decode(examples[2].ids[examples[2].prompt :].tolist(), skip_special_tokens=True) == second


def test_a_system_message_and_messages_of_several_lines(talk: Any, tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    lines = '"""What is\n5+4?\n"""\nwhat is\\\n7 plus 9?\n"""q"""\n\n  \nh\n"""\nWhat is 3*4?'
    assert talk(lines, "--save", str(file), "--system-prompt", "Be brief.", "--max-tokens", "16").status == 0
    system, *others = saved(file)[0]
    assert (system, others[::2]) == ("Be brief.", ["What is\n5+4?", "what is\n7 plus 9?", "q", "What is 3*4?"])
    done = talk("x", "--resume", str(file), "--system-prompt", "Other")
    assert (done.status, "has its own system message" in done.err) == (1, True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("", "contains no records"),
        ("{", "record 1: not valid JSON"),
        ('{"text": "a"}', "messages must be a list of objects with a role and a content"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "does not end with an answer of the assistant"),
    ],
)
def test_a_file_that_cannot_be_resumed(talk: Any, tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "chat.jsonl"
    if content is not None:
        file.write_text(content)
    done = talk("x", "--resume", str(file))
    assert (done.status, done.out, message in done.err.splitlines()[-1]) == (1, "", True), done.err


ARRAY = '[{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "b"}]}]'


OTHERS = [b"notes, not a chat", b"\x00", ARRAY.encode(), f"{ARRAY}\n".encode("utf-16"), b"3"]


@pytest.mark.parametrize("content", OTHERS)
def test_other_files_are_not_overwritten(talk: Any, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "notes.txt"
    file.write_bytes(content)
    for more in ([], ["--resume", str(file)]):
        done = talk("x", "--save", str(file), *more)
        assert (done.status, done.out, done.err.count("\n"), file.read_bytes()) == (1, "", 1, content), done.err
    assert list(tmp_path.iterdir()) == [file]
    done = talk("x", "--save", str(tmp_path / "none" / "chat.jsonl"))
    assert (done.status, "No such file or directory" in done.err, done.out) == (1, True, "")


def test_other_lines_and_fields_of_a_saved_file_stay(talk: Any, tmp_path: Path) -> None:
    """Separators of Unicode do not end a line."""
    file = tmp_path / "chats.jsonl"
    other = '{"messages": [{"role": "user", "content": "a\u2028b\u0085c"}],\r"x": 1}\n'
    last = {
        "id": 7,
        "messages": [{"role": "user", "content": "a\u2029\0", "name": "bob"}, {"role": "assistant", "content": "b"}],
    }
    file.write_text(f"{other}\n{json.dumps(last, ensure_ascii=False)}", newline="")
    separated = QUESTIONS[0].replace(". ", ".\u2028")
    done = talk(f"{separated}\nr\n{QUESTIONS[1]}\n", "--resume", str(file), "--save", str(file))
    assert done.status == 0, done.err
    first, second, third = file.read_bytes().decode().removesuffix("\n").split("\n")
    assert f"{first}\n" == other
    row = json.loads(second)
    assert (row["id"], row["messages"][:2]) == (7, last["messages"])
    assert row["messages"][2]["content"] == separated
    assert json.loads(third)["messages"][0]["content"] == QUESTIONS[1]
    # An empty file is a new file.
    file.write_text("")
    assert talk(QUESTIONS[0], "--save", str(file)).status == 0
    assert len(saved(file)) == 1


def test_a_file_that_another_program_changed_is_not_overwritten(tmp_path: Path) -> None:
    file = ConversationFile(tmp_path / "chat.jsonl", continues=False)
    file.save([{"role": "user", "content": "a"}])
    (tmp_path / "chat.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match="was changed by another program"):
        file.save([{"role": "user", "content": "b"}])
    assert (tmp_path / "chat.jsonl").read_text() == "{}\n"


def test_a_message_that_is_too_long_changes_nothing() -> None:
    chat = Chat(*load())
    for question in QUESTIONS:
        generation = chat.ask(question)
        list(generation)
        chat.keep(question, generation)
    prompt = chat.ask("x").canvas.prompt_length
    with pytest.raises(PromptError, match="context of 640"):
        chat.ask("Anna " * 500)
    assert (chat.left_out, chat.ask("x").canvas.prompt_length) == (0, prompt)


def test_old_messages_are_left_out_only_after_a_notice(talk: Any, tmp_path: Path) -> None:
    """The context has 640 positions, of which a turn takes about 50."""
    file = tmp_path / "chat.jsonl"
    done = talk("\n".join([QUESTIONS[0]] * 16), "--save", str(file))
    assert (done.status, len(done.out.splitlines())) == (0, 16)
    notices = [line for line in done.err.splitlines() if "context" in line]
    assert notices[0].startswith("The context is full. From the next message on, the model does not read the oldest")
    assert notices[1] == (
        "The conversation exceeds the context of 640 tokens. The model does not read its first 2 messages."
    )
    # The saved conversation is complete.
    assert len(saved(file)[0]) == 32


def test_a_conversation_has_the_answers_of_its_messages() -> None:
    model, tokenizer = load()
    messages = [{"role": "system", "content": "Solve."}]
    chat = Chat(model, tokenizer, sampling=Sampling(0.5, seed=3), messages=messages)
    for turn, question in enumerate(QUESTIONS):
        messages.append({"role": "user", "content": question})
        expected = generate(model, tokenizer, messages, sampling=Sampling(0.5, seed=3 + turn))
        generation = chat.ask(question)
        assert "".join(step.text for step in generation) == expected.text
        chat.keep(question, generation)
        messages.append({"role": "assistant", "content": expected.text})
        assert chat.messages == messages
    chat.reset()
    assert chat.messages == messages[:1]
    with pytest.raises(PromptError, match="context of 640"):
        chat.ask("Anna " * 500)


@pytest.mark.parametrize("write", [sdar_chat, fast_dllm_v2_folder])
def test_a_block_causal_model_computes_only_what_is_new(write: Any, tmp_path: Path) -> None:
    """The texts are those without a cache. A turn computes the rows from the first block that is new."""
    model, tokenizer = load(write(tmp_path))
    cached, fresh = (Chat(model, tokenizer, max_tokens=20) for _ in range(2))
    fresh.reuses = False
    size = cached.decoder.block_size_of(model.args)
    assert size is not None
    lengths = []
    for question in ("a" * 50, "b" * 33, "c"):
        pair = [chat.ask(question) for chat in (cached, fresh)]
        reused = pair[0].request.cache.length
        steps = [list(generation) for generation in pair]
        assert pair[0].text == pair[1].text
        assert pair[1].request.cache.length >= pair[1].canvas.prompt_length
        assert pair[0].stats.forwards <= pair[1].stats.forwards
        assert pair[1].stats.rows - pair[0].stats.rows == reused
        assert sum(step.rows for step in steps[0]) == pair[0].stats.rows
        lengths.append((reused, pair[0].canvas.prompt_length))
        for chat, generation in zip((cached, fresh), pair, strict=True):
            chat.keep(question, generation)
    # All complete blocks of the earlier conversation are reused.
    assert lengths[0][0] == 0
    for (_, before), (reused, _) in pairwise(lengths):
        assert reused >= before // size * size > 0


def test_an_approximate_cache_is_an_option_of_bidirectional_models(talk: Any, tmp_path: Path) -> None:
    done = talk("\n".join(QUESTIONS), "--approximate-cache")
    assert (done.status, len(done.out.splitlines())) == (0, 2)
    model, tokenizer = load()
    chats = [Chat(model, tokenizer, approximate_cache=approximate) for approximate in (True, False)]
    rows = []
    for chat in chats:
        for question in QUESTIONS:
            generation = chat.ask(question)
            list(generation)
            chat.keep(question, generation)
        rows.append(generation.stats.rows)
    assert rows[0] < rows[1]
    done = talk("x", "--approximate-cache", "--decoder", "vanilla")
    assert (done.status, "keeps no cache" in done.err) == (1, True)
    with pytest.raises(ConfigError, match="reuses its cache exactly"):
        Chat(*load(sdar_chat(tmp_path)), approximate_cache=True)
    # Quantized keys and values are not those of a full pass.
    assert not Chat(*load(sdar_chat(tmp_path / "kv")), SDAR(kv_bits=4, kv_group_size=32)).reuses


@needs_tmux
def test_the_keys_in_a_terminal(llada: str, tmp_path: Path) -> None:
    """Line editing, history, several lines, Ctrl-C during an answer and at the prompt, Ctrl-D."""
    file = tmp_path / "chat.jsonl"
    slow = f"--model {llada} --decoder vanilla --block-size 400 --max-tokens 400"
    with Tmux(tmp_path, f"{COMMAND} chat {slow} --save {file}") as screen:
        screen.wait_for(">> ")
        screen.type("helo", "Left", "l", "Enter")
        screen.wait_for("forwards")
        screen.type("C-c")
        screen.wait_for("Interrupted.")
        screen.wait_for(">> ", 2)
        screen.type("C-c")
        screen.wait_for("The line is dropped. Type q or press Ctrl-D to leave.")
        screen.type("Up")
        screen.wait_for(">> hello", 2)
        screen.type("C-u", "h", "Enter")
        screen.wait_for(">> ", 4)
        screen.type('"""two', "Enter")
        screen.wait_for(".. ")
        screen.type("C-c")
        screen.wait_for(">> ", 5)
        screen.type("C-d")
        screen.wait_for("exit status 0")
    for row in saved(file) if file.exists() else []:
        assert row[0] == "hello"


@needs_tmux
def test_an_answer_stays_as_plain_text(tmp_path: Path) -> None:
    with Tmux(tmp_path, f"{COMMAND} chat --save {tmp_path / 'chat.jsonl'}") as screen:
        screen.wait_for(">> ")
        screen.type(QUESTIONS[0], "Enter")
        screen.wait_for("tokens/forward")
        lines = screen.wait_for(">> ", 2).splitlines()
        assert [line.rstrip() for line in lines if line.startswith(ANSWERS[0][:9])] == [ANSWERS[0]]
        assert "demonstration model · selective" not in "\n".join(lines[-5:])
        # A pasted text with several lines is one message, and one entry of the history.
        pasted = QUESTIONS[0].replace(". ", ".\n")
        screen.paste(pasted)
        screen.type("Enter")
        screen.wait_for(">> ", 3)
        screen.type("Up", "Enter")
        screen.wait_for(">> ", 4)
        screen.type("q", "Enter")
        screen.wait_for("exit status 0")
    question, answer, *others = saved(tmp_path / "chat.jsonl")[0]
    assert (question, answer, others[::2]) == (QUESTIONS[0], ANSWERS[0], [pasted, pasted])
