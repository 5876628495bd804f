"""Which positions a step computes: those it needs, and as padding those whose cached rows are oldest."""

from __future__ import annotations

import mlx.core as mx

from d3mlx.kernels import dispatch
from d3mlx.kernels.reduction import reduction

THREADS = 512

HEADER = (
    reduction("group_sum", "int", "simd_sum", "0")
    + """
// The sum over the threads before this one.
inline int sum_before(int value, threadgroup int* part, uint lane, uint group) {
  int before = simd_prefix_exclusive_sum(value);
  int all = simd_sum(value);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (lane == 0) {
    part[group] = all;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (uint g = 0; g < group; g++) {
    before += part[g];
  }
  return before;
}
"""
)

SOURCE = """
  int me = int(thread_index_in_threadgroup);
  int threads = int(threads_per_threadgroup.x);
  uint lane = thread_index_in_simdgroup;
  uint group = simdgroup_index_in_threadgroup;
  uint groups = simdgroups_per_threadgroup;
  int length = needed_shape[0];
  threadgroup int part[32];

  // A run of neighbours for each thread, so that what it chooses stands together in the output.
  int each = (length + threads - 1) / threads;
  int first = metal::min(me * each, length);
  int last = metal::min(first + each, length);

  int wanted = 0;
  for (int p = first; p < last; p++) {
    wanted += needed[p] != 0 ? 1 : 0;
  }
  int spare = count - group_sum(wanted, part, lane, group, groups);

  // The age at which the padding ends: the least that `spare` of the other positions do not exceed.
  int low = 0;
  int high = latest;
  while (low < high) {
    int middle = low + (high - low) / 2;
    int within = 0;
    for (int p = first; p < last; p++) {
      within += needed[p] == 0 && written[p] <= middle ? 1 : 0;
    }
    if (group_sum(within, part, lane, group, groups) >= spare) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }

  // All that are older are taken, and of those of this age the first ones.
  int older = 0;
  int equal = 0;
  for (int p = first; p < last; p++) {
    older += needed[p] == 0 && written[p] < low ? 1 : 0;
    equal += needed[p] == 0 && written[p] == low ? 1 : 0;
  }
  int left = spare - group_sum(older, part, lane, group, groups);
  int earlier = sum_before(equal, part, lane, group);
  int taken = metal::clamp(left - earlier, 0, equal);
  int place = sum_before(wanted + older + taken, part, lane, group);
  for (int p = first; p < last; p++) {
    bool take = needed[p] != 0 || written[p] < low;
    if (!take && written[p] == low && taken > 0) {
      taken--;
      take = true;
    }
    if (take) {
      positions[place] = p;
      place++;
    }
  }
"""

KERNEL = dispatch.Kernel(
    name="choose_rows",
    input_names=("needed", "written", "count", "latest"),
    output_names=("positions",),
    source=SOURCE,
    header=HEADER,
)


def launch(needed: mx.array, written: mx.array, count: int, latest: int) -> dispatch.Launch:
    """One threadgroup for all positions."""
    return dispatch.Launch(
        inputs=[needed, written, count, latest],
        grid=(THREADS, 1, 1),
        threadgroup=(THREADS, 1, 1),
        output_shapes=[(count,)],
        output_dtypes=[mx.int32],
    )


def reference(needed: mx.array, written: mx.array, count: int) -> mx.array:
    """The same in MLX operations."""
    length = needed.size
    ages = mx.where(needed != 0, -1, written).astype(mx.int64)
    order = mx.argsort(ages * length + mx.arange(length))
    return mx.sort(order[:count]).astype(mx.int32)


def choose_rows(needed: mx.array, written: mx.array, count: int, latest: int) -> mx.array:
    """Ascending positions, int32 [count].

    needed: uint8 [L], not 0 where a position must be computed; at most `count` of them. written: int32 [L], from 0 to
    `latest`, the step that computed each position last. count: at most L.
    """
    if not dispatch.on_gpu():
        return reference(needed, written, count)
    (positions,) = dispatch.run(KERNEL, launch(needed, written, count, latest))
    return positions
