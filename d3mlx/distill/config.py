"""Settings of a training run, the published recipes, and config files."""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from d3mlx.distill.losses import LossConfig
from d3mlx.distill.masking import MaskingConfig, Selection
from d3mlx.distill.optimizer import OptimizerConfig
from d3mlx.errors import ConfigError
from d3mlx.files import refuse_special
from d3mlx.models.traits import Traits

ObjectiveName = Literal["d3llm", "sft"]
FineTuneType = Literal["lora", "full"]
RateSchedule = Literal["constant", "cosine"]
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class DistillConfig:
    """Settings of `d3mlx distill`, under the names of its options.

    batch_size: sequences per batch over all processes. grad_accumulation_steps: batches per step. iters: steps of the
    run; replaces epochs. max_length: tokens of a sequence. With response_length a batch is as long as its longest
    sequence, at most its longest prompt plus response_length. entropy_on_complement: as in Dream's recipe.
    """

    model: str = ""
    data: str = ""
    adapter_path: str = "adapters"
    objective: ObjectiveName = "d3llm"
    fine_tune_type: FineTuneType = "lora"
    num_layers: int = -1
    rank: int = 16
    scale: float = 2.0
    dropout: float = 0.0
    targets: tuple[str, ...] = PROJECTIONS
    batch_size: int = 4
    grad_accumulation_steps: int = 4
    grad_checkpoint: bool = False
    epochs: float = 6.0
    iters: int | None = None
    learning_rate: float = 2e-5
    lr_schedule: RateSchedule = "constant"
    warmup: float = 0.0
    weight_decay: float = 0.01
    clip: float = 1.0
    max_length: int = 384
    response_length: int | None = None
    block_sizes: tuple[int, ...] = (16, 16, 24, 24, 32, 32)
    min_mask_ratio: float = 0.0
    max_mask_ratio: float = 0.8
    blockwise: bool = True
    random_masks: bool = False
    selection: Selection = "published"
    complementary: bool = True
    entropy_weight: float = 2.0
    entropy_temperature: float = 0.5
    entropy_on_complement: bool = False
    only_correct: bool = False
    seed: int = 42
    save_every: int = 100
    log_every: int = 10

    @property
    def masking(self) -> MaskingConfig:
        """Return the settings of the masks."""
        low, high = self.min_mask_ratio, self.max_mask_ratio
        return MaskingConfig(low, high, self.blockwise, self.random_masks, self.selection)

    @property
    def loss(self) -> LossConfig:
        """Return the settings of the d3LLM loss."""
        return LossConfig(self.entropy_weight, self.entropy_temperature, self.entropy_on_complement)

    @property
    def lora_parameters(self) -> dict[str, Any]:
        """Return the LoRA settings under mlx-lm's names."""
        keys = [f"self_attn.{t}" if t in PROJECTIONS[:4] else f"mlp.{t}" for t in self.targets]
        return {"rank": self.rank, "scale": self.scale, "dropout": self.dropout, "keys": keys}

    def steps(self, rows: int) -> int:
        """Return the number of steps for `rows` training examples."""
        return self.iters or max(1, math.ceil(self.epochs * rows / (self.batch_size * self.grad_accumulation_steps)))

    def optimizer(self, steps: int) -> OptimizerConfig:
        """Return the settings of the optimizer for a run of `steps` steps."""
        return OptimizerConfig(
            peak_rate=self.learning_rate,
            final_rate=0.0,
            warmup=round(self.warmup * steps),
            schedule=self.lr_schedule,
            betas=(0.9, 0.999),
            weight_decay=self.weight_decay,
            clip=self.clip,
            average=None,
        )

    def check(self) -> None:
        """Raise ConfigError that names the first invalid setting."""
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not (low <= value <= high and math.isfinite(value)):
                bounds = f"at least {low} and finite" if high == math.inf else f"between {low:,} and {high:,}"
                raise ConfigError(f"{name.replace('_', '-')} must be {bounds}, not {value}.")
        for name, kind in (
            ("objective", ObjectiveName),
            ("fine_tune_type", FineTuneType),
            ("lr_schedule", RateSchedule),
            ("selection", Selection),
        ):
            if (value := getattr(self, name)) not in get_args(kind):
                choices = ", ".join(get_args(kind))
                raise ConfigError(f"{name.replace('_', '-')} must be one of {choices}, not {value!r}.")
        longest = RANGES["max_length"][1]
        if not self.block_sizes or not 1 <= min(self.block_sizes) <= max(self.block_sizes) <= longest:
            raise ConfigError(f"block-sizes must be one or more sizes from 1 to {longest:,}, for example 16,24,32.")
        unknown = [target for target in self.targets or ("nothing",) if target not in PROJECTIONS]
        if unknown:
            raise ConfigError(f"targets must be among {', '.join(PROJECTIONS)}, not {unknown[0]}.")
        if self.min_mask_ratio > self.max_mask_ratio:
            raise ConfigError("min-mask-ratio must not be above max-mask-ratio.")
        if self.dropout and self.grad_checkpoint:
            raise ConfigError(
                "Cannot combine dropout and grad-checkpoint: the second forward would drop other values. Choose one."
            )


RANGES: dict[str, tuple[float, float]] = {
    "rank": (1, 4096),
    "scale": (0, 1_000_000),
    "dropout": (0, 0.999),
    "batch_size": (1, 4096),
    "grad_accumulation_steps": (1, 100_000),
    "epochs": (1e-6, 100_000),
    "iters": (1, 100_000_000),
    "learning_rate": (0, math.inf),
    "warmup": (0, 1),
    "weight_decay": (0, math.inf),
    "clip": (1e-9, math.inf),
    "max_length": (2, 1 << 20),
    "response_length": (1, 1 << 20),
    "min_mask_ratio": (0, 1),
    "max_mask_ratio": (0, 1),
    "entropy_weight": (0, 1_000_000),
    "entropy_temperature": (1e-3, 1_000_000),
    "seed": (0, 2**32 - 1),
    "save_every": (1, 100_000_000),
    "log_every": (1, 100_000_000),
}

LLADA: dict[str, Any] = {"rank": 256, "scale": 1.0}
DREAM: dict[str, Any] = {
    "rank": 256,
    "scale": 1.0,
    "epochs": 3.0,
    "block_sizes": (16, 24, 32),
    "lr_schedule": "cosine",
    "warmup": 0.05,
    "entropy_weight": 1.0,
    "entropy_on_complement": True,
    "max_length": 512,
    "response_length": 256,
}
CODER: dict[str, Any] = {
    **DREAM,
    "fine_tune_type": "full",
    "learning_rate": 2e-6,
    "complementary": False,
    "entropy_on_complement": False,
    "max_length": 1000,
    "response_length": 512,
}
RECIPES = {"llada": LLADA, "dream": DREAM, "coder": CODER}
"""The published recipes (d3LLM). Each had 4 x 4 sequences per step and GPU, on four GPUs.

The published recipe of LLaDA adapts only q, k, v and up, because the names of the other projections did not match. Here
`targets` selects the projections [default: all seven].
"""


def read_config(path: Path) -> dict[str, Any]:
    """Return the settings of a YAML or TOML file. Raises ConfigError if the file is invalid or a setting is unknown."""
    refuse_special([path], ConfigError)
    if not path.exists():
        raise ConfigError(f"Config file {path} does not exist.")
    try:
        if path.suffix == ".toml":
            settings: Any = tomllib.loads(path.read_text(encoding="utf-8"))
        else:
            import yaml

            settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except Exception as error:
        # The YAML parser's errors share no base class with the TOML parser's.
        raise ConfigError(f"Cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} must contain settings, for example `rank: 16`.")
    settings = {str(name).replace("-", "_"): value for name, value in settings.items()}
    known = {field.name for field in fields(DistillConfig)} | {"preset"}
    if unknown := sorted(set(settings) - known):
        raise ConfigError(f"Unknown setting {unknown[0]!r} in {path}. Run d3mlx distill --help for the settings.")
    return settings


def typed(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with the types of `DistillConfig`: tuples for lists, and floats for whole numbers.

    Text is converted to numbers too, because YAML reads `1e-5` as text. Raises ConfigError.
    """
    hints = get_type_hints(DistillConfig)
    out: dict[str, Any] = {}
    for name, value in settings.items():
        kind = hints[name]
        wants_bool = isinstance(value, bool) != (kind is bool)
        try:
            if value is None and kind in (int | None,):
                out[name] = None
            elif wants_bool:
                raise ValueError
            elif kind in (float, int, int | None):
                number = float(value)
                if kind is not float and number != int(number):
                    raise ValueError
                out[name] = number if kind is float else int(number)
            elif kind in (tuple[int, ...], tuple[str, ...]):
                items = value.split(",") if isinstance(value, str) else list(value)
                out[name] = tuple(int(item) if kind == tuple[int, ...] else str(item).strip() for item in items)
            elif kind is str and not isinstance(value, str):
                raise ValueError
            else:
                out[name] = value
        except (ValueError, TypeError, OverflowError):
            raise ConfigError(f"Invalid value for {name.replace('_', '-')}: {value!r}.") from None
    return out


def build_config(file: dict[str, Any], flags: dict[str, Any]) -> DistillConfig:
    """Combine defaults, recipe, file and flags; later ones win. Raises ConfigError."""
    given = {**file, **flags}
    name = given.pop("preset", None)
    if name is not None and (not isinstance(name, str) or name not in RECIPES):
        raise ConfigError(f"preset must be one of {', '.join(RECIPES)}, not {name!r}.")
    config = replace(DistillConfig(), **typed({**(RECIPES[name] if name else {}), **given}))
    config.check()
    refuse_unused(config, set(given))
    return config


OF_TRAJECTORIES = (
    "block_sizes",
    "min_mask_ratio",
    "max_mask_ratio",
    "blockwise",
    "random_masks",
    "selection",
    "complementary",
    "entropy_weight",
    "entropy_temperature",
    "entropy_on_complement",
)
OF_LORA = ("rank", "scale", "dropout", "targets")


def refuse_unused(config: DistillConfig, given: set[str]) -> None:
    """Raise ConfigError if a setting in `given` has no effect with the others. In recipes this is allowed."""
    unused = {
        "objective sft": OF_TRAJECTORIES if config.objective == "sft" else (),
        "fine-tune-type full": OF_LORA if config.fine_tune_type == "full" else (),
        "random-masks": ("selection",) if config.random_masks else (),
    }
    for other, names in unused.items():
        for name in names:
            if name in given and getattr(config, name) is not False:
                raise ConfigError(f"{name.replace('_', '-')} has no effect with {other}. Leave one of them out.")


FREE_TO_CHANGE = {"adapter_path", "save_every", "log_every", "grad_checkpoint", "model", "data"}
"""Settings that a resumed run may change, because they do not change the result."""


def check_same_content(config: DistillConfig, now: dict[str, str], before: dict[str, Any]) -> None:
    """Raise ConfigError if the run to resume had another model or other data. Their names do not matter."""
    for name, source in (("model", config.model), ("data", config.data)):
        key = f"{name}_fingerprint"
        if before.get(key, now[key]) != now[key]:
            raise ConfigError(
                f"The {name} {source} is not the one of the run in {config.adapter_path}. Resume with the same {name}, "
                "or choose another --adapter-path."
            )


def check_same_run(config: DistillConfig, before: dict[str, Any]) -> None:
    """Raise ConfigError if the run to resume had other settings."""
    now = json.loads(json.dumps(asdict(config)))
    for name, value in now.items():
        if name not in FREE_TO_CHANGE and before.get(name, value) != value:
            raise ConfigError(
                f"The run in {config.adapter_path} had {name.replace('_', '-')} {before[name]!r}, not {value!r}. "
                "Resume it with the same settings."
            )


def check_trainable(traits: Traits) -> None:
    """Raise ConfigError for a family that d3mlx does not train, because a block-causal model is trained with a mask."""
    if traits.attention != "bidirectional":
        raise ConfigError(
            f"Trajectories and distillation need a model with bidirectional attention, and {traits.name} has "
            f"{traits.attention} attention. Use a LLaDA or Dream model."
        )
