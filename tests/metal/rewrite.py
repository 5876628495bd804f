"""The two changes that turn Metal text into C++ with the same line numbers.

`threadgroup float a[32];` declares memory that all threads share. C++ has no such declaration, so it becomes a call
into the runtime. `constant` becomes `const constant`.
"""

from __future__ import annotations

import re

TOKEN = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|\w+|\s+|.", re.S)
CONSTANT = re.compile(r"(?<!const )\bconstant\b(?=[^;,(){}=]*[*&])(?![^;,(){}=*&]*\bconst\b)")
FIRST = re.compile(r"^(?:const )?(.*?[\s>])(\w+)\s*((?:\[[^\]]*\]\s*)*)$")
NEXT = re.compile(r"^(\w+)\s*((?:\[[^\]]*\]\s*)*)$")


def to_cpp(text: str) -> str:
    return CONSTANT.sub("const constant", threadgroup_variables(text))


def threadgroup_variables(text: str) -> str:
    """Replace the declarations of threadgroup variables by calls. Pointers and references do not change.

    `threadgroup float a[32], b;` -> MSL_THREADGROUP(0, "a", a, float [32]); MSL_THREADGROUP(1, "b", b, float );
    """
    tokens: list[str] = TOKEN.findall(text)
    out: list[str] = []
    i, count, before = 0, 0, ""
    while i < len(tokens):
        token = tokens[i]
        if token == "threadgroup" and before in ("", ";", "{", "}", ")"):
            end = statement_end(tokens, i + 1)
            statement = tokens[i + 1 : end]
            variables = declarations("".join(t for t in statement if not is_comment(t))) if end < len(tokens) else []
            if variables:
                numbered = enumerate(variables, count)
                calls = [f'MSL_THREADGROUP({k}, "{name}", {name}, {kind})' for k, (name, kind) in numbered]
                out.append("; ".join(calls) + "\n" * "".join(statement).count("\n"))
                count, before, i = count + len(variables), "x", end
                continue
        out.append(token)
        if not token.isspace() and not is_comment(token):
            before = token
        i += 1
    return "".join(out)


def is_comment(token: str) -> bool:
    return token.startswith(("//", "/*"))


def statement_end(tokens: list[str], start: int) -> int:
    """Return the index of the semicolon that ends the declaration of a variable, else len(tokens).

    The declaration of a pointer or a reference also gives len(tokens).
    """
    depth = 0
    for j in range(start, len(tokens)):
        token = tokens[j]
        if token == ";" and depth == 0:
            return j
        if token in ("(", "[", "{"):
            depth += 1
        elif token in (")", "]", "}"):
            depth -= 1
        if depth < 0 or (depth == 0 and token in ("*", "&")):
            break
    return len(tokens)


def declarations(statement: str) -> list[tuple[str, str]]:
    """Return the names and types of declared variables, empty if there are none.

    'float a[32], b[4][8]' -> [('a', 'float [32]'), ('b', 'float [4][8]')].
    """
    parts, depth = [""], 0
    for character in " ".join(statement.split()):
        depth += (character in "<([{") - (character in ">)]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    first = FIRST.match(parts[0].strip())
    others = [NEXT.match(part.strip()) for part in parts[1:]]
    if not first or not all(others):
        return []
    kind = first[1].strip()
    variables = [(first[2], f"{kind} {first[3].strip()}")]
    return variables + [(other[1], f"{kind} {other[2].strip()}") for other in others if other]
