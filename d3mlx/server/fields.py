"""Reading of a request's body: the fields of OpenAI's API, and the options of d3mlx under their declared names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from d3mlx.decoding.options import options_of
from d3mlx.decoding.presets import PRESETS, preset
from d3mlx.decoding.sampling import Sampling
from d3mlx.document import Blank, Document
from d3mlx.errors import D3Error
from d3mlx.prompt import Prompt

NO_SUFFIX = ("", "<|endoftext|>")
"""Suffixes that mean that there is none. Some clients always send one."""

ROLES = ("system", "user", "assistant")

MOST_IGNORED = 32
"""Number of ignored fields that a reply lists."""

SAMPLING = ("temperature", "top_p", "top_k", "seed", "end_penalty")
LENGTHS = ("max_completion_tokens", "max_tokens", "n_predict")
"""Names of the maximum length of an answer. The first one that is given counts."""

DECODER_OPTIONS = {name for kind in PRESETS.values() for name in options_of(kind)}

REFUSED = {
    "logprobs": "A diffusion model has no log-probabilities of its answer. Leave out logprobs.",
    "top_logprobs": "A diffusion model has no log-probabilities of its answer. Leave out top_logprobs.",
    "logit_bias": "logit_bias is not supported. Leave it out.",
    "tools": "Tools are not supported. Leave out tools.",
    "functions": "Functions are not supported. Leave out functions.",
}
"""Fields that change the answer and are not supported, with what to do. Empty values are accepted."""


class BadRequestError(D3Error):
    """A request that cannot be answered. field: its name in the body, None if it is not one field."""

    def __init__(self, message: str, field: str | None = None):
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Defaults:
    """Settings of the server for fields that a request does not have. options: of the decoder, by name."""

    decoder: str
    options: Mapping[str, Any]
    sampling: Sampling
    max_tokens: int | None


@dataclass(frozen=True)
class Ask:
    """How a client wants its answer. name: of the decoder. options: keyword arguments of `Generation`.

    diffusing: every chunk has the whole current text. ignored: names of fields without an effect.
    """

    name: str
    decoder: Any
    options: dict[str, Any]
    stream: bool
    include_usage: bool
    diffusing: bool
    ignored: tuple[str, ...]


class Body:
    """The JSON object of a request. It notes which fields are read."""

    def __init__(self, content: object):
        if not isinstance(content, dict):
            raise BadRequestError("The body must be a JSON object.")
        self.content: dict[str, Any] = content
        self.read: set[str] = set()

    def get(self, name: str, *kinds: type, default: Any = None) -> Any:
        """Return a field, or the default if it is missing or null. Raises BadRequestError for another type."""
        self.read.add(name)
        value = self.content.get(name)
        if value is None:
            return default
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            words = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
            allowed = " or ".join(
                words.get(kind, "an object") for kind in kinds if not (kind is int and float in kinds)
            )
            raise BadRequestError(f"{name} must be {allowed}, not {value!r:.80}.", name)
        return value

    @property
    def unread(self) -> tuple[str, ...]:
        """Return the names of the fields that were not read, sorted. Long names are cut, and so are long lists."""
        names = sorted(self.content.keys() - self.read)[:MOST_IGNORED]
        return tuple(name[:80].encode(errors="replace").decode() for name in names)


def read_ask(body: Body, defaults: Defaults) -> Ask:
    """Return how a client wants its answer. Raises BadRequestError.

    The fields of the prompt must be read before, so that they do not count as ignored.
    """
    for name, sentence in REFUSED.items():
        body.read.add(name)
        if body.content.get(name):
            raise BadRequestError(sentence, name)
    if body.get("n", int, default=1) != 1:
        raise BadRequestError("n must be 1. Send several requests instead.", "n")
    form = body.get("response_format", dict, default={})
    if form.get("type", "text") != "text":
        raise BadRequestError("response_format must be text. JSON schemas are not supported.", "response_format")
    body.get("model", str)
    lengths = [body.get(name, int) for name in LENGTHS]
    stop = body.get("stop", str, list, default=[])
    options = {
        "max_tokens": next((length for length in lengths if length not in (None, -1)), defaults.max_tokens),
        "sampling": read_sampling(body, defaults.sampling),
        "stop": [stop] if isinstance(stop, str) else stop,
    }
    streaming = body.get("stream_options", dict, default={})
    decoder = read_decoder(body, defaults)
    return Ask(
        body.get("decoder", str, default=defaults.decoder),
        decoder,
        options,
        body.get("stream", bool, default=False),
        bool(streaming.get("include_usage")),
        body.get("diffusing", bool, default=False),
        body.unread,
    )


def with_field_names(sentence: str) -> str:
    """Return a sentence with the names of fields as the API has them, for example `max_tokens` for max-tokens."""
    for name in sorted({*SAMPLING, *LENGTHS, *DECODER_OPTIONS}, key=len, reverse=True):
        sentence = re.sub(rf"\b{name.replace('_', '-')}\b", name, sentence)
    return sentence


def read_sampling(body: Body, defaults: Sampling) -> Sampling:
    """Return the sampling of a request. Raises BadRequestError."""
    values = {name: body.get(name, int, float, default=getattr(defaults, name)) for name in SAMPLING}
    for name in ("temperature", "top_p", "end_penalty"):
        try:
            values[name] = None if values[name] is None else float(values[name])
        except OverflowError:
            raise BadRequestError(f"{name} is too large.", name) from None
    if isinstance(values["seed"], int):
        values["seed"] %= 2**32
    # llama.cpp's clients send 0 for all tokens.
    values["top_k"] = values["top_k"] or None
    try:
        return Sampling(**values)
    except D3Error as error:
        raise BadRequestError(str(error)) from None


def read_decoder(body: Body, defaults: Defaults) -> Any:
    """Return the decoder with the options of a request. Raises BadRequestError."""
    name = body.get("decoder", str, default=defaults.decoder)
    given = {option: body.content[option] for option in DECODER_OPTIONS & body.content.keys()}
    body.read |= given.keys()
    own = defaults.options if name == defaults.decoder else {}
    try:
        return preset(name, **{**own, **given})
    except (D3Error, TypeError) as error:
        raise BadRequestError(str(error)) from None


def read_messages(body: Body) -> list[dict[str, str]]:
    """Return the messages of a chat, each with a text. Raises BadRequestError."""
    messages = body.get("messages", list)
    if not messages:
        raise BadRequestError("messages must be a list with at least one message.", "messages")
    return [read_message(message) for message in messages]


def read_message(message: object) -> dict[str, str]:
    """Return a message with its content as one text. Raises BadRequestError for images and other parts."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise BadRequestError("A message must be an object with a role and a content.", "messages")
    content = message.get("content")
    if isinstance(content, list):
        if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
            raise BadRequestError("The parts of a message must be texts. Images are not supported.", "messages")
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise BadRequestError("The content of a message must be a text or a list of texts.", "messages")
    role = "system" if message["role"] == "developer" else message["role"]
    if role not in ROLES:
        raise BadRequestError(f"The role must be system, user or assistant, not {role!r:.80}.", "messages")
    return {"role": role, "content": content}


def read_text_prompt(body: Body) -> Prompt | Document:
    """Return the prompt of a completion: a text or token ids, or the document of a prompt and a suffix.

    Raises BadRequestError.
    """
    prompt: Any = body.get("prompt", str, list, default="")
    if body.get("echo", bool, default=False):
        raise BadRequestError("echo is not supported. Leave it out.", "echo")
    if isinstance(prompt, list):
        if len(prompt) == 1 and isinstance(prompt[0], str):
            (prompt,) = prompt
        elif not prompt or not all(isinstance(token, int) and not isinstance(token, bool) for token in prompt):
            raise BadRequestError("prompt must be one text, or the token ids of one text.", "prompt")
    suffix = body.get("suffix", str, default="")
    return prompt if suffix in NO_SUFFIX else Document.between(prompt, suffix)


def read_infill(body: Body) -> Document:
    """Return the document of llama.cpp's /infill. Raises BadRequestError.

    The texts of `input_extra` come first, each after a line with its name. `prompt` is the beginning of the hole.
    """
    extra = ""
    for file in body.get("input_extra", list, default=[]):
        if not isinstance(file, dict) or not isinstance(file.get("text"), str):
            raise BadRequestError("input_extra must be a list of objects with a filename and a text.", "input_extra")
        extra += f"{file.get('filename', '')}\n{file['text']}\n"
    prefix = extra + body.get("input_prefix", str, default="") + body.get("prompt", str, default="")
    suffix = body.get("input_suffix", str, default="")
    return Document((prefix, Blank(), suffix), whole=False)
