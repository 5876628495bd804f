"""A plugin for `llm`, the command line of Simon Willison: diffusion models as its models.

    llm -m d3mlx/embedded "Anna has 3 bags with 12 apples in each. How many apples are there?"

The environment variable D3MLX_LLM_MODELS adds models: Hub ids or folders, separated by commas.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import llm
from llm.parts import TextPart
from pydantic import Field

from d3mlx.errors import D3Error

if TYPE_CHECKING:
    from d3mlx.generation import Generation

VARIABLE = "D3MLX_LLM_MODELS"
BUNDLED = ("embedded", "teacher")
"""The bundled models that answer a question."""


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Register the bundled models, and those that the environment variable names."""
    named = [name.strip() for name in os.environ.get(VARIABLE, "").split(",")]
    for name in dict.fromkeys([*BUNDLED, *filter(None, named)]):
        register(Diffusion(name))


class Diffusion(llm.Model):
    """A checkpoint as a model of `llm`. name: Hub id, folder or bundled model. It is loaded for the first answer."""

    can_stream = True

    class Options(llm.Options):
        """Options of an answer, given as `-o max_tokens 128`."""

        max_tokens: int | None = Field(
            default=None, description="Maximum number of tokens of the answer. By default from the model, or 256."
        )
        temperature: float | None = Field(
            default=None, description="Sampling temperature. 0, the default, selects the most likely token."
        )
        top_p: float | None = Field(
            default=None,
            description="Sample only from the most likely tokens whose probabilities add up to this value.",
        )
        top_k: int | None = Field(default=None, description="Sample only from this number of most likely tokens.")
        seed: int = Field(default=0, description="Seed of sampling. The same seed gives the same text.")
        decoder: str | None = Field(
            default=None, description="Decoding method. By default from the model. `d3mlx decoders` describes them."
        )

    def __init__(self, name: str):
        self.name = name
        # The id of a folder is short. A Hub id stays complete.
        shown = name.rstrip("/").rpartition("/")[2] if name.startswith(("/", ".", "~")) else name
        self.model_id = f"d3mlx/{shown}"

    def execute(
        self, prompt: llm.Prompt, stream: bool, response: llm.Response, conversation: llm.Conversation | None
    ) -> Iterator[str]:
        """Yield the answer, as soon as its parts are readable. Raises ModelError."""
        try:
            generation = answer(self.name, chat_messages(prompt), prompt.options)
            for step in generation:
                if step.text:
                    yield step.text
        except D3Error as error:
            raise llm.ModelError(str(error)) from error
        stats = generation.stats
        response.set_usage(input=int(generation.canvas.given.sum()), output=stats.tokens)
        response.response_json = {
            "forwards": stats.forwards,
            "rows": stats.rows,
            "finish_reason": generation.finish_reason,
        }


def chat_messages(prompt: llm.Prompt) -> list[dict[str, str]]:
    """Return the conversation for a chat template: the newest system message first. Raises ModelError."""
    texts = [
        (message.role, "".join(part.text for part in message.parts if isinstance(part, TextPart)))
        for message in prompt.messages
    ]
    if not texts or texts[-1][0] != "user":
        raise llm.ModelError("The prompt is empty.")
    messages = [{"role": role, "content": text} for role, text in texts]
    systems = [message for message in messages if message["role"] == "system"]
    return systems[-1:] + [message for message in messages if message["role"] != "system"]


def answer(name: str, messages: list[dict[str, str]], options: Any) -> Generation:
    """Return the generation that answers the last message. Raises D3Error."""
    # MLX is imported for the first answer, because `llm` imports every plugin for every command.
    from d3mlx.chat import Chat
    from d3mlx.decoding.sampling import Sampling

    sampling = Sampling(options.temperature or 0.0, options.top_p, options.top_k, options.seed)
    model, tokenizer = loaded(name)
    chat = Chat(
        model,
        tokenizer,
        options.decoder,
        max_tokens=options.max_tokens,
        sampling=sampling,
        messages=messages[:-1],
    )
    return chat.ask(messages[-1]["content"])


@lru_cache(maxsize=1)
def loaded(name: str) -> tuple[Any, Any]:
    """Return a model and its tokenizer. The last one stays in memory for the next turn of `llm chat`."""
    from d3mlx.checkpoints.loader import load

    return load(name)
