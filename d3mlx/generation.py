"""One generation, and a run of many of them in shared forwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Literal

from d3mlx.batch import MAX_BATCH, Batcher
from d3mlx.cache import KVCache
from d3mlx.canvas import Canvas
from d3mlx.decoding.decoder import Decoder, Preset
from d3mlx.decoding.options import check_attention
from d3mlx.decoding.presets import preset
from d3mlx.decoding.sampling import Sampling
from d3mlx.document import Document, Layout, document_layout, has_end, prompt_layout
from d3mlx.engine import follow
from d3mlx.errors import ConfigError, PromptError
from d3mlx.models import DiffusionModel, traits_of
from d3mlx.profiling import current
from d3mlx.prompt import Prompt
from d3mlx.request import Request, Stats, Step
from d3mlx.text import TextStream, is_unicode
from d3mlx.warmup import warm_up

MOST_NEW_TOKENS = 1 << 20
"""Largest number of tokens of an answer. No model has such a context."""


def check_request(max_tokens: int | None, stop: Sequence[str]) -> None:
    """Raise ConfigError for invalid arguments that need no model to check."""
    if max_tokens is not None and (isinstance(max_tokens, bool) or not isinstance(max_tokens, Integral)):
        raise ConfigError(f"max-tokens must be a whole number, not {max_tokens!r}.")
    if max_tokens is not None and not 1 <= max_tokens <= MOST_NEW_TOKENS:
        raise ConfigError(f"max-tokens must be from 1 to {MOST_NEW_TOKENS:,}, not {max_tokens}.")
    if isinstance(stop, str) or not all(isinstance(text, str) for text in stop):
        raise ConfigError(f"stop must be a list of texts, not {stop!r}.")
    if "" in stop:
        raise ConfigError("A stop text must not be empty. Remove it.")
    if not is_unicode(stop):
        raise ConfigError("A stop text contains bytes that are not UTF-8 text. Use UTF-8.")


def check_length(max_tokens: int | None, args: Any) -> None:
    """Raise ConfigError if an answer of this length exceeds the context of the model with these ModelArgs."""
    if max_tokens is not None and max_tokens >= args.context:
        raise ConfigError(f"max-tokens must be below this model's context of {args.context}, not {max_tokens}.")


def check_decoder(decoder: Decoder, family: str, args: Any) -> None:
    """Raise ConfigError if the model of a family with these ModelArgs cannot run the decoder."""
    check_attention(decoder.attention, traits_of(family))
    if decoder.kv is not None:
        decoder.kv.check(args.shape().head_dim)


def decoder_for(model: DiffusionModel, decoder: str | Preset | Decoder | None = None) -> Decoder:
    """Return the Decoder for a preset's name, a preset, or a Decoder, which is returned unchanged.

    None stands for the default decoder of the model's family. Raises ConfigError if this model cannot run the decoder.
    """
    if decoder is None:
        decoder = traits_of(model.family).decoder
    config = preset(decoder) if isinstance(decoder, str) else decoder
    built = config if isinstance(config, Decoder) else config.build(model.family)
    check_decoder(built, model.family, model.args)
    return built


FinishReason = Literal["stop", "length"]
"""Why a text ended: an end token or a stop text, or the number of tokens."""


@dataclass(frozen=True)
class Fill:
    """The text of one hole."""

    text: str
    tokens: list[int]
    finish_reason: FinishReason


class Generation:
    """One generation. Iterate over it for Step events, or let a Batcher run its `request` and pass each Step to `take`.

    A document with holes of free length may take several rounds. Each begins with a new canvas and a new request, in
    which the holes that had no end are twice as large. Texts of an earlier round are dropped.

    document: None for a prompt. canvas: the tokens so far. layout: the pieces of the canvas. round: number of this
    round, 0 for the first. sizes: the number of masks of each hole, for each round. text: the readable text so far.
    """

    canvas: Canvas
    request: Request

    def __init__(
        self,
        model: DiffusionModel,
        tokenizer: Any,
        prompt: Prompt | Document,
        decoder: str | Preset | Decoder | None = None,
        *,
        max_tokens: int | None = None,
        sampling: Sampling | None = None,
        early_stop: bool = True,
        stop: Sequence[str] = (),
        approximate_cache: KVCache | None = None,
    ):
        """Begin a generation. The arguments are those of `stream_generate`."""
        check_request(max_tokens, stop)
        if stop and tokenizer is None:
            raise ConfigError("Stop texts need a tokenizer.")
        self.decoder = decoder_for(model, decoder)
        self.model, self.tokenizer, self.sampling = model, tokenizer, sampling or Sampling()
        self.early_stop, self.stop, self.first_cache = early_stop, tuple(stop), approximate_cache
        self.max_tokens = max_tokens or model.args.max_new_tokens
        self.block_size = self.decoder.block_size_of(model.args)
        self.document = prompt if isinstance(prompt, Document) else None
        if isinstance(prompt, Document):
            layout = document_layout(model, tokenizer, prompt, self.max_tokens)
        else:
            layout = prompt_layout(model, tokenizer, prompt, self.max_tokens)
        check_layout(layout, model, self.block_size)
        self.text, self.sizes = "", list[tuple[int, ...]]()
        self.begin(layout)

    def begin(self, layout: Layout) -> None:
        """Begin a round with the canvas of `layout`."""
        self.layout = layout
        self.sizes.append(layout.sizes)
        self.canvas = layout.canvas(self.model.args.mask_token_id, self.early_stop, self.block_size)
        warm_up(self.model, self.decoder, self.sampling)
        self.request = Request(self.model, self.canvas, self.decoder, self.sampling, cache=self.first_cache)
        self.streams = [TextStream(self.tokenizer, self.stop) for _ in layout.sizes] if self.tokenizer else []
        self.reused = self.request.cache.length

    def reuse(self, cache: KVCache) -> None:
        """Begin again from the cache of an earlier generation. Call it before the first step."""
        self.first_cache = cache
        self.sizes.pop()
        self.begin(self.layout)

    @property
    def cut_holes(self) -> list[int]:
        """Return the numbers of the holes, from 1, that have a free length and no end within `max_tokens`."""
        free = [part.size is None for part in self.document.blanks] if self.document else [True]
        fills = zip(free, self.fills, strict=True)
        return [i for i, (is_free, fill) in enumerate(fills, 1) if is_free and fill.finish_reason == "length"]

    @property
    def finish_reason(self) -> FinishReason:
        """Return why the generation ended: length if a hole has no end."""
        return "stop" if all(fill.finish_reason == "stop" for fill in self.fills) else "length"

    @property
    def round(self) -> int:
        """Return the number of rounds before this one."""
        return len(self.sizes) - 1

    @property
    def stopped(self) -> bool:
        """Return whether a stop text has appeared in every hole."""
        return bool(self.streams) and all(stream.done for stream in self.streams)

    @property
    def done(self) -> bool:
        """Return whether the canvas is complete or a stop text has appeared in every hole."""
        return self.request.done or self.stopped

    @property
    def stats(self) -> Stats:
        """Return the totals so far."""
        return self.request.stats

    @property
    def fills(self) -> list[Fill]:
        """Return the texts of the holes, as far as they are readable."""
        return [self.fill(i) for i in range(len(self.layout.sizes))]

    def fill(self, i: int) -> Fill:
        """Return the readable text of hole `i`."""
        hole = self.canvas.holes[i]
        text, stopped = "", has_end(self.canvas, hole)
        if self.streams:
            text, stopped = self.streams[i].readable, stopped or self.streams[i].done
            if self.layout.healed[i]:
                text = text.removeprefix(" ")
        return Fill(text, self.canvas.tokens[hole.start : hole.answer_end].tolist(), "stop" if stopped else "length")

    def __iter__(self) -> Iterator[Step]:
        while not self.done:
            for step in follow(self.model, self.request):
                yield self.take(step)
                if self.done:
                    return

    def take(self, step: Step) -> Step:
        """Return the Step with the text that became readable, and append this text to `text`.

        If the round is complete and a hole has no end, begin another round with larger holes.
        """
        step = replace(step, round=self.round)
        for hole, stream in zip(self.canvas.holes, self.streams, strict=False):
            stream.push(self.canvas, hole)
        if self.request.done and not self.stopped:
            closed = [stream.done for stream in self.streams] or [False] * len(self.layout.sizes)
            layout = self.layout.grown(self.canvas, closed, self.model.args.context)
            if layout is not self.layout:
                before = self.request
                self.begin(layout)
                self.request.carry_on(before.stats)
                return step
        known, self.text = len(self.text), self.readable()
        return replace(step, text=self.text[known:])

    def readable(self) -> str:
        """Return the text up to the first mask. While a hole may still grow, only the text before the first hole."""
        text = self.layout.given[0]
        if not all(map(self.settled, range(len(self.layout.sizes)))):
            return text
        for i, stream in enumerate(self.streams):
            text += self.fill(i).text
            hole = self.canvas.holes[i]
            if not stream.done and self.canvas.masked[hole.start : hole.answer_end].any():
                break
            text += self.layout.given[i + 1]
        return text

    def settled(self, i: int) -> bool:
        """Return whether hole `i` has its final size: its text has an end, or it cannot grow."""
        ended = has_end(self.canvas, self.canvas.holes[i]) or any(stream.done for stream in self.streams[i : i + 1])
        return ended or self.layout.sizes[i] == self.layout.limits[i] or self.request.done


def check_layout(layout: Layout, model: DiffusionModel, block_size: int | None) -> None:
    """Raise PromptError if the positions of a layout do not fit the model, or an id is not one of its tokens.

    block_size: size of the blocks of a block-causal model.
    """
    width, context = model.args.logit_width, model.args.context
    if bad := [token for piece in layout.pieces for token in piece if not 0 <= token < width]:
        raise PromptError(f"The prompt contains token id {bad[0]}. Use ids from 0 to {width - 1}.")
    given, new = sum(map(len, layout.pieces)), sum(layout.sizes)
    if given + new > context and any(layout.pieces[1:]):
        raise PromptError(
            f"The text ({given} tokens) and its holes ({new} tokens) exceed this model's context of {context}. Shorten "
            "the text or its holes."
        )
    if given + new > context:
        raise PromptError(
            f"The prompt ({given} tokens) and {new} new tokens exceed this model's context of {context}. "
            "Shorten the prompt or lower max-tokens."
        )
    if block_size and -(-(given + new) // block_size) * block_size > context:
        raise PromptError(
            f"The prompt ({given} tokens) and {new} new tokens need complete blocks of {block_size}, which "
            f"exceed this model's context of {context}. Lower max-tokens or the block size."
        )


def run_batch(
    model: DiffusionModel, feed: Callable[[], Generation | None], max_batch: int = MAX_BATCH
) -> Iterator[tuple[Generation, Step]]:
    """Run as many generations together as `max_batch` and memory allow. Yield each Step with its generation.

    feed: returns the next generation, or None if there is none yet. It is called whenever there is room. The run ends
    when it returns None and no generation is running. An error of `feed` is raised after the earlier generations are
    done. The cache of a generation is dropped when it is done.
    """
    batcher, profile = Batcher(model, max_batch), current()
    profile.begin()
    generations: dict[Request, Generation] = {}
    failure: Exception | None = None
    while True:
        while failure is None and batcher.has_room:
            try:
                fed = feed()
                if fed is None:
                    break
                batcher.submit(fed.request)
            except Exception as error:
                failure = error
            else:
                generations[fed.request] = fed
        if not batcher.busy:
            break
        for request, step in batcher.step(profile):
            generation = generations[request]
            step = generation.take(step)
            if generation.request is not request:
                # A hole was too small. The next round waits for its turn.
                request.release()
                del generations[request]
                batcher.submit(generation.request)
                generations[generation.request] = generation
            elif generation.done:
                batcher.cancel(request)
                request.release()
                del generations[request]
            yield generation, step
        profile.mark("consumers")
    if failure is not None:
        raise failure
