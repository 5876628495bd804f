"""Compile the Metal text of every kernel with Apple's compiler. This needs Xcode and no GPU.

    python -m tests.metal.apple FOLDER            # write the texts and print the commands
    python -m tests.metal.apple FOLDER --run      # also run them; the exit status is 1 if one fails

Each file contains the text that MLX generates, after MLX's own header from the installed wheel, which MLX puts before
every kernel. There is one file for each dtype and for few and many rows, because MLX passes small inputs in another
address space.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import mlx.core as mx

from tests.kernels import snapshot
from tests.metal.compile import mlx_headers

STANDARDS = ("metal3.1", "metal3.2")
"""Versions of the language: MLX uses 3.1 on macOS 14 and 3.2 on macOS 15."""

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
ROWS = (1, 8)
HEADER = '#include "mlx/backend/metal/kernels/utils.h"\n'


def write(folder: Path) -> list[Path]:
    """Write one file per kernel, dtype and number of rows, and return their paths. Equal texts share one file."""
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[str, Path] = {}
    for name, dtype in DTYPES.items():
        for rows in ROWS:
            for kernel, launch in snapshot.typical_calls(dtype, rows):
                text = snapshot.generated(kernel, launch).text
                if text not in written:
                    written[text] = folder / f"{kernel.name}-{name}-{rows}.metal"
                    written[text].write_text(HEADER + text)
    return list(written.values())


def command(file: Path, standard: str) -> list[str]:
    """Return the command that compiles a file. Math is precise, as in MLX's own compilation of kernels."""
    options = [f"-std={standard}", "-fno-fast-math", "-Wall", "-Wextra", "-I", str(mlx_headers())]
    return ["xcrun", "-sdk", "macosx", "metal", *options, "-c", str(file), "-o", str(file.with_suffix(".air"))]


def main() -> None:
    """Write the texts, print the commands, and run them with --run."""
    folder, *rest = sys.argv[1:]
    failed = 0
    for file in write(Path(folder)):
        for standard in STANDARDS:
            line = command(file, standard)
            sys.stdout.write(shlex.join(line) + "\n")
            sys.stdout.flush()
            failed += "--run" in rest and subprocess.run(line).returncode != 0
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
