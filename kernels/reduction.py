"""Metal text that more than one kernel has: a value of every thread becomes one that all threads know."""

from __future__ import annotations

REDUCTION = """
inline KIND NAME(KIND value, threadgroup KIND* part, uint lane, uint group, uint groups) {
  value = SIMD(value);
  // Whoever still reads the last result must be done before it is overwritten.
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (lane == 0) {
    part[group] = value;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  return SIMD(lane < groups ? part[lane] : IDENTITY);
}
"""


def reduction(name: str, kind: str, simd: str, identity: str) -> str:
    """A function `name` that reduces a `kind` over the threadgroup with the SIMD-group function `simd`.

    identity: what an absent SIMD-group counts as.
    """
    pieces = {"KIND": kind, "NAME": name, "SIMD": simd, "IDENTITY": identity}
    text = REDUCTION
    for place, piece in pieces.items():
        text = text.replace(place, piece)
    return text
