"""Build the student, the default model, from its teacher: trajectories, distillation, 8 bits, measurements.

    python -m d3mlx.research.builds.student --out FOLDER [--work FOLDER] [--resume]

This is what `d3mlx trajectories` and `d3mlx distill` do, with the settings below. Two processes under `mlx.launch`
record twice as fast.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import mlx.core as mx
import typer

from d3mlx.checkpoints.loader import TEACHER, load
from d3mlx.cli.render.progress import RecordingProgress
from d3mlx.cli.render.training import watcher
from d3mlx.convert.target import new_folder
from d3mlx.distill.config import DistillConfig
from d3mlx.distill.fuse import fuse
from d3mlx.distill.prompts import EMBEDDED, questions
from d3mlx.distill.recording import record_all, settings_of, wait_for_all
from d3mlx.distill.run import distill
from d3mlx.distill.trainer import CHECKPOINT
from d3mlx.distill.trajectories import RecordConfig, Teacher
from d3mlx.distill.trajectory_store import SHARD
from d3mlx.errors import ConfigError
from d3mlx.files import fingerprint, holds_files, write_text
from d3mlx.research.batches import CANVAS
from d3mlx.research.builds.shipped import HELD_OUT, check_out, float_checkpoint, publish, save_floats
from d3mlx.research.script import script

RECORDED = 6000
"""Training problems that the teacher answers. With fewer answers, seen more often, students are confident and wrong."""

EPOCHS = 15

RECORD = RecordConfig(max_tokens=CANVAS, teacher=Teacher(8, "selective"), early_stop=True, check=True)
"""The teacher is correct most often in blocks of 8. A wrong answer is tried again, and skipped if it stays wrong.

Of 100 problems, 87 were solved correctly with the selective cache, and 90 without a cache, in 2.5 times the time.
"""

BLOCK_SIZES = tuple(size for size in (16, 24, 32) for _ in range(EPOCHS // 3))
"""Block size per epoch: it grows from half a block to a whole one, in thirds of the run as published."""

DISTILL = DistillConfig(
    fine_tune_type="full",
    batch_size=48,
    grad_accumulation_steps=1,
    epochs=EPOCHS,
    learning_rate=5e-4,
    lr_schedule="cosine",
    warmup=0.05,
    max_length=3 * CANVAS,
    response_length=CANVAS,
    block_sizes=BLOCK_SIZES,
    max_mask_ratio=1.0,
    selection="segment",
    complementary=False,
    only_correct=True,
    seed=0,
    save_every=250,
    log_every=50,
)
"""The published objective with one forward per sequence, as for Dream-Coder, and positions ranked within a block.

Masks cover up to the whole block instead of 0.8 of it, because decoders begin with a masked block. In a pilot run this
gave more tokens per forward at equal accuracy.
"""

TEMPERATURE = 1.3
"""Divisor of the student's logits. The entropy loss makes the student overconfident.

Chosen on 200 to 300 validation problems, where `selective` with its default threshold was correct in 71 % at 6.3 tokens
per forward. With 1 it was correct in 66 % at 6.9, with 1.5 in 76 % at 5.8. The teacher was correct in 61 % at 3.8.
"""


@dataclass(frozen=True)
class Work:
    """The folders of a build. Round 0 starts from the teacher, a further round from the student of the round before."""

    folder: Path

    @property
    def teacher(self) -> Path:
        return self.folder / "teacher-float32"

    @property
    def inputs(self) -> Path:
        """Return the file with the inputs of the build: fingerprint of the teacher, and problems per round."""
        return self.folder / "begun.txt"

    def trajectories(self, number: int) -> Path:
        return self.folder / f"trajectories-{number}"

    def adapters(self, number: int) -> Path:
        return self.folder / f"weights-{number}"

    def student(self, number: int) -> Path:
        """Return the folder of the student after a round, or of the teacher if `number` is negative."""
        return self.teacher if number < 0 else self.folder / f"student-{number}-float32"

    @property
    def calibrated(self) -> Path:
        """Return the folder of the last student, whose logits are divided by TEMPERATURE."""
        return self.folder / "student-calibrated-float32"


def first_process() -> bool:
    return mx.distributed.init().rank() == 0


def prepare(work: Work, teacher: str, recorded: int) -> None:
    """Write the teacher's weights in float32 into the work folder. Training starts from them.

    Raises ConfigError if there is no teacher, or if the work folder belongs to another teacher or number of problems.
    """
    if not (Path(teacher) / "config.json").is_file():
        raise ConfigError(f"{teacher} does not contain a model. Set --teacher to the folder of the teacher.")
    inputs = f"{fingerprint(teacher)} {recorded}"
    if first_process() and work.teacher.exists() and (not work.inputs.exists() or work.inputs.read_text() != inputs):
        raise ConfigError(f"{work.folder} belongs to another teacher or another --recorded. Choose another --work.")
    if first_process() and not work.teacher.exists():
        floats = float_checkpoint(Path(teacher))
        work.folder.mkdir(parents=True, exist_ok=True)
        write_text(work.inputs, inputs)
        with new_folder(work.teacher) as folder:
            save_floats(folder, *floats)
    wait_for_all()


def record(work: Work, number: int, count: int) -> None:
    """Record the answers of a round's teacher to problems of this round only."""
    source = work.student(number - 1)
    teacher = load(source)
    prompts = questions(EMBEDDED, *teacher, CANVAS, False, (number + 1) * count)[number * count :]
    settings = settings_of(*teacher, teacher=str(source), teacher_fingerprint=fingerprint(source), data=EMBEDDED)
    with RecordingProgress("recording", shown=first_process()) as report:
        record_all(*teacher, prompts, RECORD, work.trajectories(number), settings, SHARD, report)


def of_round(work: Work, number: int, config: DistillConfig = DISTILL) -> DistillConfig:
    folders = work.student(number - 1), work.trajectories(number), work.adapters(number)
    model, data, adapter_path = map(str, folders)
    return replace(config, model=model, data=data, adapter_path=adapter_path)


def train(work: Work, number: int) -> None:
    """Train the model of the round before on the trajectories of this round."""
    config = of_round(work, number)
    adapters = work.adapters(number)
    distill(config, watcher, resume=(adapters / CHECKPOINT).is_file())
    if first_process() and not work.student(number).exists():
        fuse(config.model, adapters, work.student(number), dequantize=False)
    wait_for_all()


def calibrate(work: Work, number: int) -> Path:
    """Divide the logits of a round's student by TEMPERATURE, and return its folder. Greedy decoding stays the same."""
    if first_process():
        model, tokenizer, config = float_checkpoint(work.student(number))
        model.lm_head.weight = model.lm_head.weight / TEMPERATURE
        shutil.rmtree(work.calibrated, ignore_errors=True)
        with new_folder(work.calibrated) as folder:
            save_floats(folder, model, tokenizer, config)
    wait_for_all()
    return work.calibrated


def build(
    out: Annotated[Path, typer.Option(help="Folder of the finished model. Replaces an existing model.")],
    work: Annotated[Path, typer.Option(help="Folder of trajectories, checkpoints and logs.")] = Path("runs/student"),
    teacher: Annotated[str, typer.Option(help="Folder of the teacher.")] = TEACHER,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the build in the work folder.")] = False,
    recorded: Annotated[
        int, typer.Option(min=1, help="Training problems that the teacher answers per round.")
    ] = RECORDED,
    rounds: Annotated[
        int, typer.Option(min=0, help="Further rounds on the student's own correct answers to new problems.")
    ] = 0,
    problems: Annotated[int, typer.Option(min=1, help="Held-out problems to measure with.")] = HELD_OUT,
) -> None:
    """Record, distill, quantize, measure and write the student."""
    check_out(out, work)
    folders = Work(work)
    if first_process() and holds_files(work) and not resume:
        raise ConfigError(f"{work} already contains a build. Continue it with --resume, or choose another --work.")
    wait_for_all()
    prepare(folders, teacher, recorded)
    for number in range(rounds + 1):
        record(folders, number, recorded)
        train(folders, number)
    floats = calibrate(folders, rounds)
    again = f" Rounds on the student's own answers: {rounds}." if rounds else ""
    if first_process():
        command = "`python -m d3mlx.research.builds.student`"
        how = f"distilled by {command}\nfrom its correct answers to {recorded} problems.{again}"
        publish(floats, out, "d3mlx demonstration model: student", f"The bundled teacher, {how}", problems)


if __name__ == "__main__":
    script(build)
