"""`vanilla`: the models' own samplers, with one forward over the whole canvas per step (LLaDA and Dream papers)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from d3mlx.decoding.acceptance import STEPS, TEMPERATURE, TIME, DreamOrigin, DreamSchedule, Measure, Quota
from d3mlx.decoding.cache_policy import NoCache
from d3mlx.decoding.decoder import Decoder
from d3mlx.decoding.options import Options, Range, check_choice, option
from d3mlx.decoding.schedule import BLOCK_SIZE, SequentialBlocks, WholeCanvas
from d3mlx.errors import ConfigError
from d3mlx.models import traits_of

LLADA_ALGS: dict[str, Measure] = {"low_confidence": "confidence", "random": "random"}
DREAM_ALGS: dict[str, Measure] = {"entropy": "entropy", "maskgit_plus": "confidence", "topk_margin": "margin"}

GUIDANCE = Range("a number", 0, 1000)
"""A larger strength of guidance overflows."""

Alg = Literal["low_confidence", "random", "entropy", "maskgit_plus", "topk_margin", "origin"]


@dataclass(frozen=True)
class Vanilla(Options):
    """Use the model's own sampler: a number of tokens per step, no KV cache."""

    steps: int | None = option(
        "Decode the complete answer in this many steps.", None, STEPS, note="one per new token", common=True
    )
    block_size: int | None = option("Decode in blocks of this many tokens (LLaDA only).", 32, BLOCK_SIZE, common=True)
    alg: Alg | None = option(
        "Choose which positions commit first. low_confidence and random are for LLaDA, the others for Dream.",
        lambda traits: "low_confidence" if traits.sampler == "quota" else "entropy",
    )
    cfg_scale: float | None = option(
        "Use classifier-free guidance of this strength, 0 for none (LLaDA only).", 0.0, GUIDANCE
    )
    ends: Literal["ranked", "last"] | None = option(
        "Commit end tokens by their confidence (ranked), or last (LLaDA only, confidence_eos_eot_inf).", "ranked"
    )
    alg_temp: float | None = option(
        "Choose positions at this temperature, 0 for no randomness (Dream only).", 0.0, TEMPERATURE
    )
    eps: float | None = option("End the noise schedule at this time (Dream only).", 1e-3, TIME)

    def build(self, family: str) -> Decoder:
        traits = traits_of(family)
        self.check_attention(traits)
        return self.quota(family) if traits.sampler == "quota" else self.schedule(family)

    def quota(self, family: str) -> Decoder:
        """Return LLaDA's sampler. Raises ConfigError for options of Dream's."""
        if self.alg_temp is not None or self.eps is not None:
            raise ConfigError(
                "alg-temp and eps are options of Dream's sampler, and this is a LLaDA model. Leave them out."
            )
        options = self.filled(traits_of(family))
        check_choice("alg for a LLaDA model", options.alg, tuple(LLADA_ALGS))
        if options.ends == "last" and options.alg == "random":
            raise ConfigError(
                "ends last has no effect with alg random, which uses no confidence. Leave out one of them."
            )
        rule = Quota(LLADA_ALGS[options.alg], self.steps, ends_last=options.ends == "last")
        return Decoder(SequentialBlocks(options.block_size), rule, NoCache(), options.cfg_scale)

    def schedule(self, family: str) -> Decoder:
        """Return Dream's sampler. Raises ConfigError for options of LLaDA's."""
        if self.cfg_scale is not None or self.block_size is not None or self.ends is not None:
            raise ConfigError(
                "cfg-scale, block-size and ends are options of LLaDA's sampler, and this is a Dream model. Leave them "
                "out."
            )
        options = self.filled(traits_of(family))
        check_choice("alg for a Dream model", options.alg, (*DREAM_ALGS, "origin"))
        if options.alg == "origin":
            if self.alg_temp is not None:
                raise ConfigError("alg-temp has no effect with alg origin, where chance alone decides. Leave it out.")
            return Decoder(WholeCanvas(), DreamOrigin(self.steps, options.eps), NoCache())
        rule = DreamSchedule(DREAM_ALGS[options.alg], self.steps, options.eps, options.alg_temp)
        return Decoder(WholeCanvas(), rule, NoCache())
