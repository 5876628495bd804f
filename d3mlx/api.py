"""Public functions that turn prompts into text and Step events: `generate`, `stream_generate`, `batch_generate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any

from d3mlx.batch import MAX_BATCH, Batcher
from d3mlx.cache import KVCache
from d3mlx.decoding.decoder import Decoder, Preset
from d3mlx.decoding.sampling import Sampling
from d3mlx.document import Document
from d3mlx.errors import PromptError
from d3mlx.generation import Fill, Generation, run_batch
from d3mlx.models import DiffusionModel
from d3mlx.prompt import Prompt
from d3mlx.request import Stats, Step


@dataclass(frozen=True)
class Result:
    """A finished generation. `tokens` run up to and including the first end token; `text` ends before it.

    If a stop text ended the answer, `text` ends before the stop text. `tokens` then continue after it, as the canvas
    has them, and may include mask tokens.

    For a document, `text` is the whole document, `tokens` are those of all holes, and `fills` are the holes in order.
    With a suffix, `text` is the text before the suffix. A prompt alone is followed by one hole.
    """

    text: str
    tokens: list[int] = field(repr=False)
    steps: list[Step] = field(repr=False)
    stats: Stats
    fills: list[Fill] = field(repr=False)


def stream_generate(
    model: DiffusionModel,
    tokenizer: Any,
    prompt: Prompt | Document,
    decoder: str | Preset | Decoder | None = None,
    *,
    max_tokens: int | None = None,
    sampling: Sampling | None = None,
    early_stop: bool = True,
    stop: Sequence[str] = (),
    suffix: str | None = None,
    approximate_cache: KVCache | None = None,
) -> Iterator[Step]:
    """Yield a Step for each forward; its `text` is the text that became readable.

    prompt: text (encoded without a chat template), chat messages, or token ids, which need no tokenizer; or a
        `Document`, a text with holes.
    decoder: the name of a preset, a config such as `D3LLM` or `SDAR`, or a `Decoder` made of your own policies; by
        default that of the model's family.
    max_tokens: maximum length of the answer, in tokens, and of every hole of free length; by default max_new_tokens of
        config.json, else 256.
    sampling: temperature, truncation and seed; greedy by default.
    early_stop: do not decode positions after an end token.
    stop: texts that end the answer.
    suffix: the text after the answer. The answer then fills the hole between the prompt and the suffix.
    approximate_cache: `Generation(...).request.cache` of an earlier prompt of this model; it is not changed. Leading
        tokens that both prompts have in common are not computed again. On a bidirectional model the answer may differ;
        on a block-causal model it does not, and complete blocks are reused.
    Raises PromptError and ConfigError before the first forward.
    """
    return iter(
        Generation(
            model,
            tokenizer,
            with_suffix(prompt, suffix),
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
    prompt: Prompt | Document,
    decoder: str | Preset | Decoder | None = None,
    *,
    max_tokens: int | None = None,
    sampling: Sampling | None = None,
    early_stop: bool = True,
    stop: Sequence[str] = (),
    suffix: str | None = None,
    approximate_cache: KVCache | None = None,
) -> Result:
    """Return the Result of a complete generation. The arguments are those of `stream_generate`."""
    generation = Generation(
        model,
        tokenizer,
        with_suffix(prompt, suffix),
        decoder,
        max_tokens=max_tokens,
        sampling=sampling,
        early_stop=early_stop,
        stop=stop,
        approximate_cache=approximate_cache,
    )
    return result_of(generation, list(generation))


def with_suffix(prompt: Prompt | Document, suffix: str | None) -> Prompt | Document:
    """Return a prompt, or the document of a prompt and the text after its answer. Raises PromptError."""
    if suffix is None or suffix == "":
        return prompt
    if not isinstance(suffix, str):
        raise PromptError(f"The suffix must be a text, not {suffix!r}.")
    if prompt is None:
        raise PromptError("A suffix needs a prompt. Give the text before the answer, which may be empty.")
    if isinstance(prompt, Document):
        raise PromptError("A document already has its text after the holes. Leave out the suffix.")
    return Document.between(prompt, suffix)


def result_of(generation: Generation, steps: list[Step]) -> Result:
    return Result(generation.text, generation.canvas.answer.tolist(), steps, generation.stats, generation.fills)


def batch_generate(
    model: DiffusionModel,
    tokenizer: Any,
    prompts: Sequence[Prompt | Document],
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
    several = [] if isinstance(prompts, str | Document) else list(prompts)
    if prompts and (not several or all(isinstance(item, Mapping | Integral) for item in several)):
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
        for index, prompt in enumerate(several)
    ]
    batcher = Batcher(model, max_batch)
    for generation in generations:
        batcher.check(generation.request)
    steps: dict[Generation, list[Step]] = {generation: [] for generation in generations}
    queue = iter(generations)
    for generation, step in run_batch(model, lambda: next(queue, None), max_batch):
        steps[generation].append(step)
    return [result_of(generation, steps[generation]) for generation in generations]
