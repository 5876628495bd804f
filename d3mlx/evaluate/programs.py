"""Programs out of the text that a model wrote: the code in it, and of that code what is needed."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Collection

FENCES = ("```python\n", "```\n")
MOST_LINES = 100


def fenced(text: str) -> str:
    """The first code block of a text, or the text itself where it has none; a block may lack its end."""
    for fence in FENCES:
        if fence in text:
            return text.split(fence, 1)[1].split("```", 1)[0]
    return text


def parsed(source: str) -> ast.Module | None:
    """The syntax tree, None for what is not valid Python. Odd escapes in a model's strings are no news to the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def longest_program(text: str) -> str:
    """The longest run of lines that is valid Python, of the first hundred lines; "" if there is none."""
    lines = text.splitlines()[:MOST_LINES]
    for length in range(len(lines), 0, -1):
        for start in range(len(lines) - length + 1):
            source = "\n".join(lines[start : start + length])
            if source.strip() and parsed(source):
                return source
    return ""


def defined(statement: ast.stmt) -> set[str]:
    """Names that a statement at the top level of a module binds: a function, a class, assigned names."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and stored(node)}
    return set()


def stored(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)


def used(statement: ast.stmt) -> set[str]:
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and not stored(node)}


def needed(source: str, wanted: Collection[str]) -> str:
    """Return the imports and the definitions that the wanted names reach, without statements that only act, as prints.

    If none of the names is defined, all definitions stay. "" if the source is not valid Python.
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


def sanitised(text: str, wanted: Collection[str]) -> str:
    """The program in a model's text, cut to what the wanted names need; "" where there is none."""
    return needed(longest_program(text), wanted)


def names_in(tests: Collection[str]) -> set[str]:
    """Return every name that test statements use; names that no program defines have no effect."""
    names: set[str] = set()
    for test in tests:
        names |= {node.id for node in ast.walk(parsed(test) or ast.Module([], [])) if isinstance(node, ast.Name)}
    return names
