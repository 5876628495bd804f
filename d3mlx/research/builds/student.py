"""Builds the student, the embedded model, from its teacher: trajectories, distillation, 8 bits, figures, the folder.

    python -m d3mlx.research.builds.student --out FOLDER [--work FOLDER] [--resume]

The same as `d3mlx trajectories` and `d3mlx distill` do, with the settings below. Two processes under `mlx.launch`
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
"""Training problems that the teacher answers: few answers seen often make a student that is confident and wrong."""

EPOCHS = 15

RECORD = RecordConfig(max_tokens=CANVAS, teacher=Teacher(8, "selective"), early_stop=True, check=True)
"""Blocks in which the teacher is correct most often. A wrong answer is tried again, and left out if it stays wrong.

Of 100 problems, 87 were solved correctly with the selective cache, and 90 without a cache, in 2.5 times the time.
"""

BLOCK_SIZES = tuple(size for size in (16, 24, 32) for _ in range(EPOCHS // 3))
"""From half a block to a whole one, in thirds of the run as published (there two of six epochs each)."""

DISTILL = DistillConfig(
    fine_tune_type="full",
    batch_size=48,
    grad_accumulation_steps=1,
    epochs=EPOCHS,
    learning_rate=5e-4,
    lr_schedule="cosine",
    warmup=0.05,
    max_length=2 * CANVAS,
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
"""The published objective, one forward a sequence (as published for Dream-Coder), positions ranked within a block.

Masks up to all of a block, which is how a decoder meets it first, instead of 0.8 of it: in a pilot that gave more
tokens per forward at equal accuracy.
"""

TEMPERATURE = 1.3
"""Divisor of the student's logits. Its training rewards certainty and made it overconfident.

Chosen on 200 to 300 validation problems, where `selective` with its default threshold was correct in 71 % at 6.3 tokens
per forward (with 1: 66 % at 6.9; with 1.5: 76 % at 5.8), and the teacher in 61 % at 3.8.
"""


@dataclass(frozen=True)
class Work:
    """The folders of a build: those of round 0 begin at the teacher, each further one at the round before."""

    folder: Path

    @property
    def teacher(self) -> Path:
        return self.folder / "teacher-float32"

    @property
    def mark(self) -> Path:
        """What a build was begun with: the fingerprint of the teacher, the number of problems of a round."""
        return self.folder / "begun.txt"

    def trajectories(self, number: int) -> Path:
        return self.folder / f"trajectories-{number}"

    def adapters(self, number: int) -> Path:
        return self.folder / f"weights-{number}"

    def student(self, number: int) -> Path:
        """The student after a round; the teacher before the first one."""
        return self.teacher if number < 0 else self.folder / f"student-{number}-float32"

    @property
    def calibrated(self) -> Path:
        """The last student, its logits divided by TEMPERATURE."""
        return self.folder / "student-calibrated-float32"


def first_process() -> bool:
    return mx.distributed.init().rank() == 0


def prepare(work: Work, teacher: str, recorded: int) -> None:
    """The teacher's weights in float32, which training starts from.

    Raises ConfigError for another teacher or another number of problems than the work folder's, or for no teacher.
    """
    if not (Path(teacher) / "config.json").is_file():
        raise ConfigError(f"{teacher} holds no model; give the folder of a --teacher.")
    begun = f"{fingerprint(teacher)} {recorded}"
    if first_process() and work.teacher.exists() and (not work.mark.exists() or work.mark.read_text() != begun):
        raise ConfigError(f"{work.folder} was begun with another teacher or another --recorded; give another --work.")
    if first_process() and not work.teacher.exists():
        floats = float_checkpoint(Path(teacher))
        work.folder.mkdir(parents=True, exist_ok=True)
        write_text(work.mark, begun)
        with new_folder(work.teacher) as folder:
            save_floats(folder, *floats)
    wait_for_all()


def record(work: Work, number: int, count: int) -> None:
    """The answers of a round's teacher to problems that no other round has."""
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
    """Distil a round's trajectories into the model of the round before."""
    config = of_round(work, number)
    adapters = work.adapters(number)
    distill(config, watcher, resume=(adapters / CHECKPOINT).is_file())
    if first_process() and not work.student(number).exists():
        fuse(config.model, adapters, work.student(number), dequantize=False)
    wait_for_all()


def calibrate(work: Work, number: int) -> Path:
    """Divide the logits of a round's student, which changes no likeliest token; the folder."""
    if first_process():
        model, tokenizer, config = float_checkpoint(work.student(number))
        model.lm_head.weight = model.lm_head.weight / TEMPERATURE
        shutil.rmtree(work.calibrated, ignore_errors=True)
        with new_folder(work.calibrated) as folder:
            save_floats(folder, model, tokenizer, config)
    wait_for_all()
    return work.calibrated


def build(
    out: Annotated[Path, typer.Option(help="Folder of the finished model; one that exists is replaced.")],
    work: Annotated[Path, typer.Option(help="Folder of trajectories, checkpoints and logs.")] = Path("runs/student"),
    teacher: Annotated[str, typer.Option(help="Folder of the teacher.")] = TEACHER,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what the work folder holds.")] = False,
    recorded: Annotated[
        int, typer.Option(min=1, help="Training problems that the teacher answers, in each round.")
    ] = RECORDED,
    rounds: Annotated[
        int, typer.Option(min=0, help="Further rounds: the student's own right answers to new problems teach it again.")
    ] = 0,
    problems: Annotated[int, typer.Option(min=1, help="Held-out problems to measure with.")] = HELD_OUT,
) -> None:
    """Record, distil, quantize, measure and write the student."""
    check_out(out, work)
    folders = Work(work)
    if first_process() and holds_files(work) and not resume:
        raise ConfigError(f"{work} holds a build already; go on with --resume, or give another --work.")
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
