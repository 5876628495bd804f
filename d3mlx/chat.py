"""A conversation of several turns with a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from d3mlx.cache import KVCache
from d3mlx.decoding.decoder import Decoder, Preset
from d3mlx.decoding.sampling import Sampling
from d3mlx.errors import ConfigError
from d3mlx.generation import Generation, check_request, decoder_for
from d3mlx.models import DiffusionModel, traits_of
from d3mlx.prompt import encode

Message = dict[str, str]


class Chat:
    """A conversation. `ask` begins an answer, and `keep` adds it to the conversation.

    A block-causal model computes only what is new since the last turn, which is exact. A bidirectional model, and a
    model with quantized keys and values, compute the whole conversation in every turn.

    messages: the conversation, oldest first. left_out: number of its oldest messages that did not fit the context with
    the last message, so the model did not read them. A system message is always read.
    """

    def __init__(
        self,
        model: DiffusionModel,
        tokenizer: Any,
        decoder: str | Preset | Decoder | None = None,
        *,
        max_tokens: int | None = None,
        sampling: Sampling | None = None,
        messages: Sequence[Message] = (),
        approximate_cache: bool = False,
    ):
        """Begin a conversation. max_tokens and sampling are those of `stream_generate`, for every answer.

        messages: an earlier conversation to continue. approximate_cache: such a model also reuses keys and values of
        earlier turns, so its answers may differ. Raises ConfigError and PromptError.
        """
        check_request(max_tokens, ())
        self.model, self.tokenizer = model, tokenizer
        self.decoder = decoder_for(model, decoder)
        self.max_tokens = max_tokens or model.args.max_new_tokens
        self.sampling = sampling or Sampling()
        self.messages = [dict(message) for message in messages]
        if self.messages:
            encode(tokenizer, self.messages)
        self.left_out = 0
        # Quantized keys and values differ a little from those that a full pass attends to.
        self.exact = traits_of(model.family).attention == "block-causal" and self.decoder.kv is None
        if approximate_cache and self.exact:
            raise ConfigError(f"A {model.family} model reuses its cache exactly. Leave out --approximate-cache.")
        if approximate_cache and not self.decoder.cache.cached:
            raise ConfigError("This decoder keeps no cache. Use another decoder, or leave out --approximate-cache.")
        self.reuses = self.exact or approximate_cache
        self.cache: KVCache | None = None

    @property
    def turns(self) -> int:
        """Return the number of answers so far."""
        return sum(message["role"] == "assistant" for message in self.messages)

    def ask(self, text: str) -> Generation:
        """Return the generation that answers a message of the user. Iterate over it for Step events.

        If the conversation does not fit the context, its oldest messages are left out (`left_out`). The seed is that of
        `sampling` plus the number of earlier answers. Raises PromptError if the message alone does not fit.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        left_out = self.overflow(messages)
        generation = Generation(
            self.model,
            self.tokenizer,
            messages[: self.first] + messages[self.first + left_out :],
            self.decoder,
            max_tokens=self.max_tokens,
            sampling=replace(self.sampling, seed=(self.sampling.seed + self.turns) % 2**32),
            approximate_cache=self.cache,
        )
        self.left_out = left_out
        return generation

    def keep(self, text: str, generation: Generation) -> None:
        """Add a message of the user and its answer to the conversation. An interrupted answer ends where it is."""
        answer = {"role": "assistant", "content": generation.text}
        self.messages += [{"role": "user", "content": text}, answer]
        if self.reuses:
            self.cache = generation.request.cache

    def reset(self) -> None:
        """Forget all messages except the system message."""
        self.messages = self.messages[: self.first]
        self.left_out, self.cache = 0, None

    @property
    def first(self) -> int:
        """Return the index of the first message that is not the system message."""
        return int(bool(self.messages) and self.messages[0]["role"] == "system")

    @property
    def nearly_full(self) -> bool:
        """Return whether the next message, however short, pushes out the oldest ones."""
        return self.overflow([*self.messages, {"role": "user", "content": "?"}]) > self.left_out

    def overflow(self, messages: list[Message]) -> int:
        """Return how many of the oldest messages must be left out, so that the others and an answer fit the context."""
        out, size = 0, self.decoder.block_size_of(self.model.args) or 1
        while True:
            shown = messages[: self.first] + messages[self.first + out :]
            needed = len(encode(self.tokenizer, shown)) + self.max_tokens
            if -(-needed // size) * size <= self.model.args.context or out + 2 >= len(messages) - self.first:
                return out
            out += 2
