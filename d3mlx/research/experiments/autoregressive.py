"""Compare the embedded model's decoders with autoregression: mlx-lm's llama of the same size in its own greedy loop.

python -m d3mlx.research.experiments.autoregressive [--count N]

The llama has random weights, because only its time matters. From the same prompts it generates as many tokens as the
answers of `selective` have. All decoders take turns on each prompt. On a CPU, times are processor times, so other
programs on the machine do not count. On a CPU, mlx-lm needs a C++ compiler.
"""

from __future__ import annotations

from typing import Annotated, Any

import mlx.core as mx
import typer
from mlx_lm.generate import generate_step
from mlx_lm.models import llama

from d3mlx import Generation, load
from d3mlx.bench.cost import float_dtype
from d3mlx.bench.generation import Decoded
from d3mlx.checkpoints.loader import EMBEDDED
from d3mlx.data.stories.stories import problem
from d3mlx.data.stories.tokenizer import build_tokenizer
from d3mlx.decoding.d3llm import D3LLM
from d3mlx.decoding.decoder import Preset
from d3mlx.decoding.fast_dllm import FastDLLM
from d3mlx.decoding.selective import Selective
from d3mlx.decoding.vanilla import Vanilla
from d3mlx.kernels.dispatch import on_device
from d3mlx.research.builds.next_token import llama_config
from d3mlx.research.experiments.journal import CLOCK
from d3mlx.research.experiments.pages import table
from d3mlx.research.script import script

AR = "autoregression"
DECODERS: dict[str, Preset] = {
    "selective": Selective(),
    "d3llm": D3LLM(),
    "d3llm, no cache": D3LLM("none"),
    "fast-dllm": FastDLLM(),
    "vanilla": Vanilla(),
}


class Counted(llama.Model):
    """mlx-lm's model, which counts its forwards and rows."""

    forwards = rows = 0

    def __call__(self, inputs: mx.array, *arguments: Any, **options: Any) -> mx.array:
        self.forwards += 1
        self.rows += inputs.size
        logits: mx.array = super().__call__(inputs, *arguments, **options)
        return logits


def twin(model: Any) -> Counted:
    """Return a llama of the embedded model's sizes, in the precision of `model`."""
    llama_model = Counted(llama.ModelArgs.from_dict(llama_config(build_tokenizer())))
    llama_model.set_dtype(float_dtype(model))
    mx.eval(llama_model.parameters())
    return llama_model


def diffuse(total: Decoded, generation: Generation) -> int:
    """Add one answer to `total`, and return its number of tokens."""
    began = CLOCK()
    *_, last = generation
    total.seconds += CLOCK() - began
    total.tokens += last.stats.tokens
    total.forwards += last.stats.forwards
    total.rows += last.stats.rows
    return last.stats.tokens


def generate_left_to_right(total: Decoded, model: Counted, prompt: mx.array, tokens: int) -> None:
    """Add one answer of this length to `total`. mlx-lm's loop computes one forward more than it yields tokens."""
    model.forwards = model.rows = 0
    began = CLOCK()
    total.tokens += sum(1 for _ in generate_step(prompt, model, max_tokens=tokens))
    total.seconds += CLOCK() - began
    total.forwards += model.forwards
    total.rows += model.rows


def measured(folder: str, count: int) -> dict[str, Decoded]:
    """Return the totals over the first `count` held-out problems, by decoder."""
    model, tokenizer = load(folder)
    other = twin(model)
    for index in (0, *range(count)):
        if index == 0:
            # The first problem is solved twice. Only the second time counts, so that warm-up costs nothing.
            totals = {name: Decoded() for name in (AR, *DECODERS)}
        question = [{"role": "user", "content": problem(index, "held-out").question}]
        tokens = 0
        for name, preset in DECODERS.items():
            generation = Generation(model, tokenizer, question, preset)
            prompt = on_device(generation.canvas.tokens[: generation.canvas.prompt_length])
            answer_tokens = diffuse(totals[name], generation)
            tokens = tokens or answer_tokens
        generate_left_to_right(totals[AR], other, prompt, tokens)
    return totals


def compare(
    model: Annotated[str, typer.Option(help="Folder of the diffusion model.")] = EMBEDDED,
    count: Annotated[int, typer.Option(min=1, help="Held-out problems.")] = 50,
) -> None:
    """Solve problems with every decoder and with autoregression, and print a table."""
    totals = measured(model, count)
    reference = totals[AR].figures()["tokens_per_second"]
    rows = []
    for name, total in totals.items():
        figures = total.figures()
        rows.append(
            [
                name,
                f"{figures['tokens_per_second'] / reference:.2f}",
                f"{figures['tokens_per_second']:.0f}",
                f"{figures['tokens_per_forward']:.2f}",
                f"{figures['rows_per_token']:.1f}",
                f"{1000 * figures['seconds_per_forward']:.2f}",
                str(total.tokens),
            ]
        )
    header = ["", "speed", "tokens per CPU second", "TPF", "RPT", "ms per forward", "tokens"]
    typer.echo(f"{count} held-out problems:\n\n{table(header, rows)}")


if __name__ == "__main__":
    script(compare)
