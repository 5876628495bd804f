"""Public functions that turn prompts into text and Step events: `generate`, `stream_generate`, `batch_generate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any

from d3mlx.batch import MAX_BATCH, Batcher
from d3mlx.cache import KVCache
from d3mlx.canvas import Canvas
from d3mlx.decoding.decoder import Decoder, Preset
from d3mlx.decoding.options import Options, check_attention
from d3mlx.decoding.presets import preset
from d3mlx.decoding.sampling import Sampling
from d3mlx.engine import follow
from d3mlx.errors import ConfigError, PromptError
from d3mlx.models import DiffusionModel, traits_of
from d3mlx.profiling import current
from d3mlx.prompt import Prompt, encode
from d3mlx.request import Request, Stats, Step
from d3mlx.text import TextStream, is_unicode
from d3mlx.warmup import warm_up

MOST_NEW_TOKENS = 1 << 20
"""Largest number of tokens of an answer. No model has such a context."""


@dataclass(frozen=True)
class Result:
    """A finished generation. `tokens` run up to and including the first end token; `text` ends before it.

    If a stop text ended the answer, `text` ends before the stop text. `tokens` then continue after it, as the canvas
    has them, and may include mask tokens.
    """

    text: str
    tokens: list[int] = field(repr=False)
    steps: list[Step] = field(repr=False)
    stats: Stats


def end_ids(model: DiffusionModel, tokenizer: Any) -> tuple[int, ...]:
    """Return the ids that end an answer: those of config.json first, then those of the tokenizer."""
    configured = model.args.eos_token_id
    known = list(configured) if isinstance(configured, list) else [configured]
    if tokenizer is not None:
        known += sorted(tokenizer.eos_token_ids)
    return tuple(dict.fromkeys(known))


def make_canvas(
    model: DiffusionModel,
    tokenizer: Any,
    prompt: Prompt,
    max_tokens: int,
    early_stop: bool,
    block_size: int | None = None,
) -> Canvas:
    """Return the canvas of a prompt and `max_tokens` masks. Raises PromptError if they do not fit the model.

    block_size: size of the blocks of a block-causal model.
    """
    width, context = model.args.logit_width, model.args.context
    ids = encode(tokenizer, prompt, context)
    if bad := [token for token in ids if not 0 <= token < width]:
        raise PromptError(f"The prompt contains token id {bad[0]}. Use ids from 0 to {width - 1}.")
    if len(ids) + max_tokens > context:
        raise PromptError(
            f"The prompt ({len(ids)} tokens) and {max_tokens} new tokens exceed this model's context of {context}. "
            "Shorten the prompt or lower max-tokens."
        )
    if block_size and -(-(len(ids) + max_tokens) // block_size) * block_size > context:
        raise PromptError(
            f"The prompt ({len(ids)} tokens) and {max_tokens} new tokens need complete blocks of {block_size}, which "
            f"exceed this model's context of {context}. Lower max-tokens or the block size."
        )
    ends = end_ids(model, tokenizer)
    return Canvas.for_prompt(ids, max_tokens, model.args.mask_token_id, ends, early_stop, block_size)


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

    None stands for the default decoder of the model's family.

    This is the only function that makes a decoder depend on the machine: an option that was not given takes its default
    for this machine, if it has one. Raises ConfigError if this model cannot run the decoder.
    """
    if decoder is None:
        decoder = traits_of(model.family).decoder
    config = preset(decoder) if isinstance(decoder, str) else decoder
    if isinstance(config, Options):
        config = config.on_machine(model.args)
    built = config if isinstance(config, Decoder) else config.build(model.family)
    check_decoder(built, model.family, model.args)
    return built


class Generation:
    """One generation. Iterate over it for Step events, or let a Batcher run its `request` and pass each Step to `take`.

    canvas: the tokens so far. text: the readable text so far.
    """

    def __init__(
        self,
        model: DiffusionModel,
        tokenizer: Any,
        prompt: Prompt,
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
        self.decoder = decoder_for(model, decoder)
        length, block_size = max_tokens or model.args.max_new_tokens, self.decoder.block_size_of(model.args)
        self.canvas = make_canvas(model, tokenizer, prompt, length, early_stop, block_size)
        self.model, self.sampling = model, sampling or Sampling()
        warm_up(model, self.decoder, self.sampling)
        self.request = Request(model, self.canvas, self.decoder, self.sampling, cache=approximate_cache)
        if stop and tokenizer is None:
            raise ConfigError("Stop texts need a tokenizer.")
        self.stream = TextStream(tokenizer, tuple(stop)) if tokenizer is not None else None
        self.text = ""

    @property
    def new_tokens(self) -> int:
        """Return the largest number of positions to decode."""
        return self.canvas.new_tokens

    @property
    def done(self) -> bool:
        """Return whether the canvas is complete or a stop text has appeared."""
        return self.request.done or (self.stream is not None and self.stream.done)

    @property
    def stats(self) -> Stats:
        """Return the totals so far."""
        return self.request.stats

    def __iter__(self) -> Iterator[Step]:
        for step in follow(self.model, self.request):
            yield self.take(step)
            if self.done:
                return

    def take(self, step: Step) -> Step:
        """Return the Step with the text that became readable, and append this text to `text`."""
        text = self.read()
        self.text += text
        return replace(step, text=text)

    def read(self) -> str:
        """Return the text that became readable. After the last step this includes all text that was held back."""
        if self.stream is None:
            return ""
        text = self.stream.push(self.canvas)
        return text + self.stream.finish() if self.canvas.done else text


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
            if generation.done:
                batcher.cancel(request)
                request.release()
                del generations[request]
            yield generation, step
        profile.mark("consumers")
    if failure is not None:
        raise failure


def stream_generate(
    model: DiffusionModel,
    tokenizer: Any,
    prompt: Prompt,
    decoder: str | Preset | Decoder | None = None,
    *,
    max_tokens: int | None = None,
    sampling: Sampling | None = None,
    early_stop: bool = True,
    stop: Sequence[str] = (),
    approximate_cache: KVCache | None = None,
) -> Iterator[Step]:
    """Yield a Step for each forward; its `text` is the text that became readable.

    prompt: text (encoded without a chat template), chat messages, or token ids, which need no tokenizer.
    decoder: the name of a preset, a config such as `D3LLM` or `SDAR`, or a `Decoder` made of your own policies; by
        default that of the model's family.
    max_tokens: maximum length of the answer, in tokens; by default max_new_tokens of config.json, else 256.
    sampling: temperature, truncation and seed; greedy by default.
    early_stop: do not decode positions after an end token.
    stop: texts that end the answer.
    approximate_cache: `Generation(...).request.cache` of an earlier prompt of this model; it is not changed. Leading
        tokens that both prompts have in common are not computed again. On a bidirectional model the answer may differ;
        on a block-causal model it does not, and complete blocks are reused.
    Raises PromptError and ConfigError before the first forward.
    """
    return iter(
        Generation(
            model,
            tokenizer,
            prompt,
            decoder,
            max_tokens=max_tokens,
            sampling=sampling,
            early_stop=early_stop,
            stop=stop,
            approximate_cache=approximate_cache,
        )
    )


def generate(
    model: DiffusionModel,
    tokenizer: Any,
    prompt: Prompt,
    decoder: str | Preset | Decoder | None = None,
    *,
    max_tokens: int | None = None,
    sampling: Sampling | None = None,
    early_stop: bool = True,
    stop: Sequence[str] = (),
    approximate_cache: KVCache | None = None,
) -> Result:
    """Return the Result of a complete generation. The arguments are those of `stream_generate`."""
    generation = Generation(
        model,
        tokenizer,
        prompt,
        decoder,
        max_tokens=max_tokens,
        sampling=sampling,
        early_stop=early_stop,
        stop=stop,
        approximate_cache=approximate_cache,
    )
    return result_of(generation, list(generation))


def result_of(generation: Generation, steps: list[Step]) -> Result:
    return Result(generation.text, generation.canvas.answer.tolist(), steps, steps[-1].stats)


def batch_generate(
    model: DiffusionModel,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    decoder: str | Preset | Decoder | None = None,
    *,
    max_tokens: int | None = None,
    sampling: Sampling | None = None,
    early_stop: bool = True,
    stop: Sequence[str] = (),
    max_batch: int = MAX_BATCH,
) -> list[Result]:
    """Return the Results of several prompts, in the order of the prompts. They are decoded together.

    Prompt i gets the answer that `generate` gives it alone with the seed of `sampling` plus i. max_batch: maximum
    number of prompts decoded at once; fewer if memory is short. The other arguments are those of `stream_generate`.
    Raises PromptError, ConfigError and MemoryLimitError before the first forward.
    """
    prompts = prompts if isinstance(prompts, str) else list(prompts)
    if isinstance(prompts, str) or (prompts and all(isinstance(item, Mapping | Integral) for item in prompts)):
        raise PromptError("batch_generate takes a list of prompts. For one prompt, pass a list that contains it.")
    sampling = sampling or Sampling()
    generations = [
        Generation(
            model,
            tokenizer,
            prompt,
            decoder,
            max_tokens=max_tokens,
            sampling=replace(sampling, seed=(sampling.seed + index) % 2**32),
            early_stop=early_stop,
            stop=stop,
        )
        for index, prompt in enumerate(prompts)
    ]
    batcher = Batcher(model, max_batch)
    for generation in generations:
        batcher.check(generation.request)
    steps: dict[Generation, list[Step]] = {generation: [] for generation in generations}
    queue = iter(generations)
    for generation, step in run_batch(model, lambda: next(queue, None), max_batch):
        steps[generation].append(step)
    return [result_of(generation, steps[generation]) for generation in generations]
