"""The lint refuses text that a host compiler accepts and Metal does not."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest

from tests.metal import lint
from tests.metal.requirements import require_clang
from tests.metal.small import generated

RULES: dict[str, dict[str, Any]] = {
    "double": {"source": "double d = x[i]; out[i] = d;"},
    "lambda": {"source": "auto f = [&](float v) { return v + 1; }; out[i] = f(x[i]);"},
    "std": {"source": "out[i] = std::exp(x[i]);"},
    "goto": {"source": "goto end; end: out[i] = 1;"},
    "static variable": {"source": "static float last = 0; out[i] = last;"},
    "offset of 32 bits": {"source": "uint at = i * 2; out[i] = x[at];"},
    "not ASCII": {"source": "out[i] = x[i]; // \u2192"},
    "threadgroup variable in a helper": {
        "header": "inline void f() { threadgroup float s[3]; s[0] = 1; }\n",
        "source": "f(); out[i] = 1;",
    },
}
STRICT: dict[str, dict[str, Any]] = {
    "a helper takes device, a small input is constant": {
        "header": "inline float get(const device float* p, uint i) { return p[i]; }\n",
        "source": "out[i] = get(x, i);",
        "size": 4,
    },
    "pointer without an address space": {
        "header": "inline float get(const float* p) { return p[0]; }\n",
        "source": "float v = x[i]; out[i] = get(&v);",
    },
    "reference without an address space": {
        "header": "inline void add(float& v) { v += 1; }\n",
        "source": "float v = x[i]; add(v); out[i] = v;",
    },
    "device pointer to a private variable": {"source": "float v = 1; device float* p = &v; out[i] = *p;"},
    "threadgroup memory passed as device": {
        "header": "inline float get(const device float* p) { return p[0]; }\n",
        "source": "threadgroup float s[4]; s[0] = 1; out[i] = get(s);",
    },
    "constant input written": {"source": "x[0] = 1; out[i] = 1;", "size": 4},
    "bfloat from float": {"source": "out[i] = x[i] * 2.0f;", "dtype": mx.bfloat16},
    "function pointer": {
        "header": "inline float f(float v) { return v; }\n",
        "source": "float (*p)(float) = f; out[i] = p(x[i]);",
    },
    "float and int mixed": {"source": "out[i] = max(x[i], 0);"},
    "global that is not constant": {"header": "float shared_value = 1;\n", "source": "out[i] = shared_value;"},
    "recursion": {
        "header": "inline float even(float v);\ninline float odd(float v) { return v < 1 ? 0 : even(v - 1); }\n"
        "inline float even(float v) { return v < 1 ? 1 : odd(v - 1); }\n",
        "source": "out[i] = even(x[i]);",
    },
    "narrowing in braces": {"source": "uint n = i; char c[1] = {n}; out[i] = c[0];"},
    "narrowing of a float in braces": {"source": "float v = x[i]; int n{v}; out[i] = n;"},
    "name that nothing declares": {"source": "out[i] = threads_in_grid.x;"},
}
CLEAN: dict[str, dict[str, Any]] = {
    "helpers of every address space": {
        "header": "inline void add(thread float& v) { v += 1; }\ninline float sum(const device float* p, "
        "const threadgroup float* q, const thread float* r) { return p[0] + q[0] + r[0]; }\n",
        "source": "threadgroup float s[16]; s[i] = 0; threadgroup_barrier(mem_flags::mem_threadgroup); "
        "float v = x[i]; add(v); out[i] = sum(x + i, &s[i], &v);",
    },
    "template over the address space": {
        "header": "template <typename P> float get(P p, uint i) { return p[i]; }\n",
        "source": "out[i] = get(x, i);",
        "size": 4,
    },
    "bfloat": {"source": "out[i] = static_cast<bfloat>(float(x[i]) * 2.0f) + x[i];", "dtype": mx.bfloat16},
    "MLX's own helpers": {"source": "out[i] = x[elem_to_loc(i, x_shape, x_strides, x_ndim)] + Limits<float>::max;"},
    "SIMD functions": {"source": "out[i] = simd_sum(x[i]) + float(ulong(simd_ballot(x[i] > 0.0f)));"},
}


@pytest.mark.parametrize("what", RULES)
def test_rules(what: str) -> None:
    assert lint.rules(generated(**RULES[what]))


@pytest.mark.parametrize("what", STRICT)
def test_strict(what: str) -> None:
    require_clang()
    assert lint.rules(generated(**STRICT[what])) == []
    assert lint.strict(generated(**STRICT[what]))


@pytest.mark.parametrize("what", CLEAN)
def test_clean(what: str) -> None:
    require_clang()
    assert lint.check(generated(**CLEAN[what])) == []
