"""Which positions a step computes: those it needs, and as padding those whose cached rows are oldest."""

from __future__ import annotations

import mlx.core as mx

from d3mlx.kernels import dispatch

THREADS = 512

SOURCE = """
  int me = int(thread_index_in_threadgroup);
  int threads = int(threads_per_threadgroup.x);
  uint lane = thread_index_in_simdgroup;
  uint group = simdgroup_index_in_threadgroup;
  int length = needed_shape[0];
  threadgroup int sums[32];

  // A run of neighbours for each thread, so that what it chooses stands together in the output.
  int each = (length + threads - 1) / threads;
  int first = metal::min(me * each, length);
  int last = metal::min(first + each, length);

  int wanted = 0;
  for (int p = first; p < last; p++) {
    wanted += needed[p] != 0 ? 1 : 0;
  }
  wanted = simd_sum(wanted);
  if (lane == 0) {
    sums[group] = wanted;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  int spare = COUNT - simd_sum(lane < simdgroups_per_threadgroup ? sums[lane] : 0);

  // Positions that are not needed are taken in the order of their age; the first wins a tie.
  int chosen = 0;
  for (int p = first; p < last; p++) {
    bool take = needed[p] != 0;
    if (!take && spare > 0) {
      int age = written[p];
      int before = 0;
      for (int q = 0; q < length; q++) {
        int other = written[q];
        before += needed[q] == 0 && (other < age || (other == age && q < p)) ? 1 : 0;
      }
      take = before < spare;
    }
    taken[p] = take ? 1 : 0;
    chosen += take ? 1 : 0;
  }

  // Chosen positions before this thread's run.
  int place = simd_prefix_exclusive_sum(chosen);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (lane == threads_per_simdgroup - 1) {
    sums[group] = place + chosen;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (uint g = 0; g < group; g++) {
    place += sums[g];
  }
  for (int p = first; p < last; p++) {
    if (taken[p] != 0) {
      positions[place] = p;
      place++;
    }
  }
"""

KERNEL = dispatch.Kernel(
    name="choose_rows",
    input_names=("needed", "written"),
    output_names=("positions", "taken"),
    source=SOURCE,
)


def launch(needed: mx.array, written: mx.array, count: int) -> dispatch.Launch:
    """One threadgroup for all positions."""
    return dispatch.Launch(
        inputs=[needed, written],
        grid=(THREADS, 1, 1),
        threadgroup=(THREADS, 1, 1),
        output_shapes=[(count,), needed.shape],
        output_dtypes=[mx.int32, mx.uint8],
        template=[("COUNT", count)],
    )


def reference(needed: mx.array, written: mx.array, count: int) -> mx.array:
    """The same in MLX operations."""
    length = needed.size
    order = mx.argsort(mx.where(needed != 0, -1, written) * length + mx.arange(length))
    return mx.sort(order[:count]).astype(mx.int32)


def choose_rows(needed: mx.array, written: mx.array, count: int) -> mx.array:
    """Ascending positions, int32 [count].

    needed: uint8 [L], not 0 where a position must be computed; at most `count` of them. written: int32 [L], 0 or more,
    the step that computed each position last. count: at most L.
    """
    if not dispatch.on_gpu():
        return reference(needed, written, count)
    positions, _ = dispatch.run(KERNEL, launch(needed, written, count))
    return positions
