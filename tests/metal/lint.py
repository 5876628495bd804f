"""Checks for text that Apple's compiler would refuse although a host C++ compiler accepts it.

`rules` checks only the text. `strict` lets clang parse it as "C++ for OpenCL 2021". There device, constant, threadgroup
and thread are real address spaces. Exceptions, virtual functions, new and function pointers do not exist.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

from tests.metal.compile import HERE, mlx_headers
from tests.metal.rewrite import threadgroup_variables, to_cpp
from tests.metal.trace import Generated

NEEDED = 'the libclang package (`pip install -e ".[dev]"`)'
ARGUMENTS = (
    *("-x", "clcpp", "-cl-std=clc++2021", "-cl-no-stdinc", "-cl-single-precision-constant"),
    *("-Xclang", "-cl-ext=+cl_khr_fp16", "-target", "x86_64-linux-gnu", "-ferror-limit=30", "-Wno-everything"),
    "-Werror=c++11-narrowing",
    *("-D__UINT32_MAX__=0xffffffffu", "-I", str(HERE / "shim"), "-I", str(mlx_headers())),
)
RULES = {
    r"\bdouble\b": "MSL has no double",
    r"\b(?:try|throw|catch|typeid|dynamic_cast|thread_local|virtual|goto|new|delete|asm|printf)\b": "not in MSL",
    r"\bstd::": "no std:: in MSL",
    r"\blong long\b": "no long long in MSL",
    r"(?<=[=(,{;])\s*\[\s*[&=]?[\w\s,&=]*\]\s*(?:\([^)]*\))?\s*(?:mutable\s*)?\{": "no lambdas",
    r"\bstatic\s+(?!_?cast|_assert|constant|inline)\w": "no static variables in MSL",
    r"\bu?int\s+(?:base|at|to|offset)\s*=": "an offset into a buffer needs size_t, because 32 bits overflow",
    r"\bmemory_order_(?:acquire|release|acq_rel|seq_cst)\b": "only memory_order_relaxed before Metal 3.2",
}


def available() -> bool:
    return find_spec("clang") is not None


def check(generated: Generated) -> list[str]:
    """Return all problems, one line each. `strict` runs only if libclang is installed."""
    return rules(generated) + (strict(generated) if available() else [])


def rules(generated: Generated) -> list[str]:
    text = generated.text
    code = re.sub(r"//[^\n]*|/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.S)
    problems = [
        f"line {code.count(chr(10), 0, match.start()) + 1}: {why}: {match[0].strip()}"
        for pattern, why in RULES.items()
        for match in re.finditer(pattern, code)
    ]
    header = threadgroup_variables(text[: text.index(f"[[kernel]] void {generated.name}(")])
    if "MSL_THREADGROUP(" in header:
        problems.append("a threadgroup variable outside of the kernel function")
    strange = [number for number, line in enumerate(text.split("\n"), 1) if not line.isascii()]
    return problems + ([f"lines {strange}: MLX accepts only ASCII text"] if strange else [])


def strict(generated: Generated) -> list[str]:
    import clang.cindex as ci

    unit = strict_unit(generated)
    file = "kernel.clcpp"
    parsed = ci.Index.create().parse(file, list(ARGUMENTS), unsaved_files=[(file, unit)])
    before = unit[: unit.index("#line 1 ")].count("\n") + 1

    def position(location: Any) -> str:
        inside = str(location.file) == file
        return f"{generated.name}.metal:{location.line - before}" if inside else f"{location.file}:{location.line}"

    errors = [d for d in parsed.diagnostics if d.severity >= ci.Diagnostic.Error]
    problems = [f"{position(error.location)}: {error.spelling}" for error in errors]
    own = [cursor for cursor in parsed.cursor.get_children() if str(cursor.location.file) == file]
    for cursor in (inner for outer in own for inner in outer.walk_preorder()):
        variable = cursor.kind in (ci.CursorKind.VAR_DECL, ci.CursorKind.PARM_DECL)
        if variable and "__generic" in cursor.type.spelling:
            where = position(cursor.location)
            problems.append(f"{where}: `{cursor.spelling}` is a pointer or reference without an address space")
    for cursor in own:
        if cursor.kind == ci.CursorKind.VAR_DECL and "__constant" not in cursor.type.spelling:
            problems.append(f"{position(cursor.location)}: the global `{cursor.spelling}` must be `constant`")
    return problems + [f"`{name}` calls itself, and MSL has no recursion" for name in recursive(own)]


def recursive(cursors: list[Any]) -> list[str]:
    """Return the names of functions that call themselves, directly or through others."""
    import clang.cindex as ci

    kinds = (ci.CursorKind.FUNCTION_DECL, ci.CursorKind.FUNCTION_TEMPLATE)
    calls = {
        cursor.spelling: {
            # A call of a template has no name. The name of the function is in its references.
            inner.spelling
            for inner in cursor.walk_preorder()
            if inner.kind in (ci.CursorKind.CALL_EXPR, ci.CursorKind.DECL_REF_EXPR, ci.CursorKind.OVERLOADED_DECL_REF)
        }
        for cursor in cursors
        if cursor.kind in kinds
    }
    reached = {name: set(called) for name, called in calls.items()}
    for _ in calls:
        reached = {name: called.union(*(calls.get(other, ()) for other in called)) for name, called in reached.items()}
    return [name for name, called in reached.items() if name in called]


def strict_unit(generated: Generated) -> str:
    """Return the text with its address spaces, and an instantiation if it is a template."""
    text, instance = to_cpp(generated.text), ""
    if generated.instance != generated.name:
        text = text[: text.rindex("\ntemplate [[host_name(")] + "\n"
        types = []
        for parameter in generated.parameters:
            kind = parameter.type.replace("atomic<", "metal::atomic<")
            mark = "&" if parameter.reference else "*"
            if parameter.kind == "attribute":
                types.append(kind)
            else:
                types.append(f"{'' if parameter.kind == 'output' else 'const '}{parameter.space} {kind}{mark}")
        instance = f"template void {generated.instance}({', '.join(types)});\n"
    return (
        '#include <metal_stdlib>\n#include "mlx/backend/metal/kernels/utils.h"\n#define double MSL_has_no_double\n'
        f'#line 1 "{generated.name}.metal"\n{text}\n#line 1 "instance"\n{instance}'
    )
