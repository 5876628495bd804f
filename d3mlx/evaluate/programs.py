"""Extraction of the needed code from the text of a model.

`solution` finds the code in any usual form of answer. `sanitized` follows the rules of the published evaluation.
"""

from __future__ import annotations

import ast
import builtins
import re
import symtable
import textwrap
import warnings
from collections.abc import Collection, Iterator

FENCES = ("```python\n", "```\n")
MOST_LINES = 100
ALWAYS = {"*", "__future__"}
FENCE = re.compile(r"`{3,}[^\n`]*\n?|^[ \t]*~{3,}[^\n]*\n?", re.MULTILINE)
CHANGING = ("append", "add", "update", "extend", "insert", "setdefault", "seed")
"""Methods whose calls outside functions can prepare data for functions."""


def fenced(text: str) -> str:
    """Return the first code block of a text, which may have no end, or else the text (the published rule)."""
    for fence in FENCES:
        if fence in text:
            return text.split(fence, 1)[1].split("```", 1)[0]
    return text


def parsed(source: str, compiled: bool = False) -> ast.Module | None:
    """Return the syntax tree. None for text that is not valid Python or is nested too deeply to print.

    compiled: also run the compiler. It refuses a `return` outside a function, which the parser accepts.
    """
    # Do not show warnings about invalid escapes in a model's strings.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(source)
            ast.unparse(tree)
            if compiled:
                compile(tree, "", "exec")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
    return tree


def longest_program(text: str) -> str:
    """Return the longest run of lines that is valid Python among the first 100 lines. "" if there is none."""
    lines = text.splitlines()[:MOST_LINES]
    for length in range(len(lines), 0, -1):
        for start in range(len(lines) - length + 1):
            source = "\n".join(lines[start : start + length])
            if source.strip() and parsed(source):
                return source
    return ""


def defined(statement: ast.stmt) -> set[str]:
    """Return the names that a top-level statement binds: of a function, a class, or assigned names."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and stored(node)}
    return set()


def stored(node: ast.Name) -> bool:
    """Return whether a name is assigned."""
    return isinstance(node.ctx, ast.Store)


def used(statement: ast.stmt) -> set[str]:
    """Return the names that a statement reads."""
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and not stored(node)}


def needed(source: str, wanted: Collection[str]) -> str:
    """Return the imports and all definitions that the wanted names need, without other statements such as prints.

    If none of the names is defined, all definitions are returned. "" if the source is not valid Python.
    """
    tree = parsed(source)
    body = tree.body if tree else []
    known = set().union(*map(defined, body)) if body else set()
    reached = set(wanted) & known or known
    while True:
        names = {name for statement in body if defined(statement) & reached for name in used(statement)}
        if names & known <= reached:
            break
        reached |= names & known
    statements = [s for s in body if isinstance(s, ast.Import | ast.ImportFrom) or defined(s) & reached]
    return "\n".join(ast.unparse(statement) for statement in statements)


def sanitized(text: str, wanted: Collection[str]) -> str:
    """Return the program in a model's text, reduced to the needs of the wanted names. "" if there is none."""
    return needed(longest_program(text), wanted)


def solution(text: str, wanted: Collection[str], prompt: str = "") -> str:
    """Return the program in a model's text that defines the wanted names. "" if there is no code.

    text: prose and code, with or without fences. prompt: the code that the answer completes, or "". The solution is the
    first code that defines the most wanted names, without functions that return no value. Its undefined names are
    taken from the prompt and from the other code. Statements that do not contribute are left out.
    """
    wanted = set(wanted) - set(dir(builtins))
    candidates = [tree for piece in FENCE.split(text.replace("\r\n", "\n")) for tree in code_in(piece, prompt)]
    if not candidates:
        return ""
    best = max(candidates, key=lambda tree: len(wanted & solved(tree)))
    given = [statement for tree in runs(prompt) for statement in tree.body if not is_stub(statement)]
    body, known = best.body, set().union(*map(bound, best.body))
    for others in (given, *(tree.body for tree in candidates if tree is not best)):
        additional = [statement for statement in others if bound(statement) and not bound(statement) & known]
        body, known = additional + body, known.union(*map(bound, additional))
    reached = wanted | ALWAYS
    while more := {name for s in body if bound(s) & reached for name in free(s)} - reached:
        reached |= more
    statements = [s for s in body if bound(s) & reached]
    statements.sort(key=lambda s: "__future__" not in bound(s))
    return "\n".join(map(ast.unparse, statements))


def code_in(piece: str, prompt: str) -> Iterator[ast.Module]:
    """Yield the code of a piece of text between two fences.

    A piece that begins indented may be the body of the prompt's last function.
    """
    yield from runs(textwrap.dedent(piece))
    if prompt and re.match(r"(?:[ \t]*\n)*[ \t]+\S", piece):
        yield from runs(f"{prompt}\n{piece}", MOST_LINES + prompt.count("\n") + 1)


def runs(source: str, most: int = MOST_LINES) -> Iterator[ast.Module]:
    """Yield the runs of lines that are valid Python, each as long as possible, among the first `most` lines."""
    lines = source.split("\n")[:most]
    start = 0
    while start < len(lines):
        for end in range(len(lines), start, -1):
            tree = parsed("\n".join(lines[start:end]), compiled=True) if lines[start].strip() else None
            if tree:
                yield tree
                start = end - 1
                break
        start += 1


def is_stub(statement: ast.stmt) -> bool:
    """Return whether a statement is a function without a returned value."""
    is_function = isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef)
    returning = (ast.Return, ast.Yield, ast.YieldFrom)
    return is_function and not any(isinstance(node, returning) and node.value for node in ast.walk(statement))


def solved(tree: ast.Module) -> set[str]:
    """Return the names that a program defines, without stubs and imports."""
    return {name for s in tree.body if not is_stub(s) for name in defined(s)}


def bound(statement: ast.stmt) -> set[str]:
    """Return the names that a top-level statement binds or changes, or names in ALWAYS if it must stay."""
    if isinstance(statement, ast.ImportFrom) and (always := ALWAYS & {statement.module, statement.names[0].name}):
        return set(always)
    if isinstance(statement, ast.AnnAssign) and statement.value is None:
        return set()
    symbols = symtable.symtable(ast.unparse(statement), "", "exec").get_symbols()
    names = {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return names
    for node in ast.walk(statement):
        changed: ast.AST = node
        if isinstance(node, ast.Attribute) and node.attr == "setrecursionlimit":
            names.add("*")
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            function = node.value.func
            changed = function if isinstance(function, ast.Attribute) and function.attr in CHANGING else node
        elif not (isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store)):
            continue
        while isinstance(changed, ast.Subscript | ast.Attribute):
            changed = changed.value
        names |= {changed.id} if isinstance(changed, ast.Name) else set()
    return names


def free(statement: ast.stmt) -> set[str]:
    """Return the global names that a statement uses, without the local names of its functions."""
    tables = [symtable.symtable(ast.unparse(statement), "", "exec")]
    names = {symbol.get_name() for symbol in tables[0].get_symbols() if symbol.is_referenced()}
    for table in tables:
        tables += table.get_children()
    for table in tables[1:]:
        names |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global()}
    return names


def names_of_tests(source: str) -> set[str]:
    """Return the global names that tests use and do not define."""
    body = (parsed(source, compiled=True) or ast.Module([], [])).body
    return set().union(*map(free, body)) - set().union(*map(bound, body))


def names_in(tests: Collection[str]) -> set[str]:
    """Return all names in test statements. Names that the program does not define have no effect."""
    names: set[str] = set()
    for test in tests:
        names |= {node.id for node in ast.walk(parsed(test) or ast.Module([], [])) if isinstance(node, ast.Name)}
    return names
