"""Compilation of the Metal text of one call as C++, with a cache on disk.

Every load and store is instrumented as for thread sanitizer, but its library is not linked: runtime/ has the callbacks.
The folder of compiled kernels is D3MLX_METAL_CACHE, or d3mlx-metal in the user's cache; it may be deleted.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import mlx
import mlx.core as mx

from tests.metal.rewrite import to_cpp
from tests.metal.trace import Generated

HERE = Path(__file__).parent
COMPILERS = ("clang++",) if sys.platform == "darwin" else ("g++", "clang++")
NEEDED = "g++ 12 or clang++ 16 (for example `apt install g++`)"


class KernelError(AssertionError):
    """The kernel has a result that is wrong or undefined on a GPU."""


class CompileError(KernelError):
    """The kernel is not valid Metal, as far as a C++ compiler can check."""


@cache
def compiler() -> str | None:
    """Return the C++ compiler: CXX if it is set, else the first installed one of COMPILERS, else None."""
    return next((name for name in (os.environ.get("CXX"), *COMPILERS) if name and shutil.which(name)), None)


@cache
def cache_folder() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("D3MLX_METAL_CACHE") or Path(caches) / "d3mlx-metal")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


@cache
def mlx_headers() -> Path:
    folders = [Path(folder) / "include" for folder in mlx.__path__]  # a namespace package may have several folders
    return next(folder for folder in folders if (folder / "mlx/backend/metal/kernels/utils.h").exists())


@cache
def files_digest(folder: Path) -> bytes:
    """Return a digest of all files in a folder, so that kernels are compiled again if a header changes."""
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.digest()


def options(cxx: str, ulp_noise: int, fast_math: bool) -> list[str]:
    """Return compiler options. `ulp_noise` > 0 also lets the compiler contract a * b + c, as a GPU compiler may."""
    flags = ["-std=c++17", "-O1", "-g1", "-fPIC", "-w", "-fno-strict-aliasing", "-fsigned-char", "-fno-exceptions"]
    flags += ["-fno-rtti", "-fvisibility=hidden", f"-ffp-contract={'fast' if ulp_noise else 'off'}"]
    flags += ["-fsanitize=thread", "-fsanitize=bounds,shift,integer-divide-by-zero,float-cast-overflow,alignment"]
    if "clang" in cxx:
        flags += ["-Xclang", "-cl-single-precision-constant", "-Xclang", "-ffloat16-excess-precision=none"]
        flags += ["-fno-vectorize", "-fno-slp-vectorize", "-mllvm", "-tsan-instrument-read-before-write=1"]
    else:
        flags += ["-fsingle-precision-constant", "-fexcess-precision=16"]
    if platform.machine() == "x86_64":
        flags.append("-mf16c")  # halves are converted in place, not by calls
    if ulp_noise:
        flags.append(f"-DMSL_ULP_NOISE={ulp_noise}")
    if fast_math:
        flags.append("-D__FAST_MATH__=1")
    return flags


def translation_unit(generated: Generated) -> str:
    """Return the text as C++, with an entry point that unpacks buffers and thread attributes."""
    text = to_cpp(generated.text)
    if generated.instance != generated.name:
        text = text[: text.rindex("\ntemplate [[host_name(")] + "\n"
    arguments, buffer = [], 0
    for parameter in generated.parameters:
        if parameter.kind == "attribute":
            arguments.append(f"thread_context->{parameter.name}")
            continue
        kind = parameter.type.replace("atomic<", "metal::atomic<")
        const = "" if parameter.kind == "output" else "const "
        arguments.append(f"{'*' if parameter.reference else ''}({const}{kind}*)buffers[{buffer}]")
        buffer += 1
    return (
        '#include <metal_stdlib>\n#include "mlx/backend/metal/kernels/utils.h"\n#define double MSL_has_no_double\n'
        f'#line 1 "{generated.name}.metal"\n{text}\n#line 1 "entry"\n'
        'extern "C" __attribute__((visibility("default"), no_sanitize("thread")))\n'
        "void metal_entry(void** buffers, const msl_context* thread_context) {\n"
        f"  {generated.instance}({', '.join(arguments)});\n}}\n"
    )


def invoke(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CompileError(f"{what} does not compile:\n{done.stderr[-6000:]}")


@cache
def runtime(cxx: str) -> Path:
    """Return the library that every compiled kernel links to."""
    source = HERE / "runtime" / "runtime.cpp"
    key = hashlib.sha256(files_digest(source.parent) + cxx.encode()).hexdigest()[:16]
    library = cache_folder() / f"libruntime-{key}.so"
    if not library.exists():
        temporary = library.with_suffix(f".{os.getpid()}.so")
        command = [cxx, "-std=c++17", "-O2", "-g1", "-fPIC", "-w", "-fno-exceptions", "-shared", str(source)]
        named = "-install_name" if sys.platform == "darwin" else "-soname"
        invoke([*command, "-o", str(temporary), f"-Wl,{named},{library}"], "The runtime")
        temporary.replace(library)
    return library


def build(generated: Generated, ulp_noise: int = 0) -> Path:
    """Return the shared library of a call, compiled now or earlier. Raises CompileError."""
    cxx = compiler()
    assert cxx is not None, f"The Metal emulator needs {NEEDED}."
    unit, flags = translation_unit(generated), options(cxx, ulp_noise, generated.fast_math)
    inputs = "\0".join([unit, cxx, *flags, mx.__version__, str(runtime(cxx))]).encode()
    key = hashlib.sha256(inputs + files_digest(HERE / "shim")).hexdigest()[:24]
    library = cache_folder() / f"{key}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory() as folder:
        source, object_file, temporary = (Path(folder) / f"kernel.{suffix}" for suffix in ("cpp", "o", "so"))
        source.write_text(unit)
        include = ["-I", str(HERE / "shim"), "-I", str(mlx_headers())]
        invoke([cxx, *flags, *include, "-c", str(source), "-o", str(object_file)], generated.name)
        # Link without -fsanitize, so that a callback that the runtime lacks is an error.
        strict = [] if sys.platform == "darwin" else ["-Wl,--no-undefined"]
        command = [cxx, "-shared", str(object_file), str(runtime(cxx)), "-lm", *strict]
        invoke([*command, "-o", str(temporary)], generated.name)
        waiting = library.with_suffix(f".{os.getpid()}.so")
        shutil.copy(temporary, waiting)
        waiting.replace(library)
    return library


@cache
def load(library: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(library))


def line_of(library: Path, offset: int) -> int:
    """Return the line of the kernel text at a code offset, 0 if unknown."""
    if not offset or not shutil.which("addr2line"):
        return 0
    command = ["addr2line", "-i", "-e", str(library), hex(offset - 1)]
    frames = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    lines = [frame.rsplit(":", 1)[1].split()[0] for frame in frames if ".metal:" in frame or ".cpp:" in frame]
    return int(lines[0]) if lines and lines[0].isdigit() else 0
