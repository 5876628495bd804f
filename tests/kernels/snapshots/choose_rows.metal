
inline int group_sum(int value, threadgroup int* part, uint lane, uint group, uint groups) {
  value = simd_sum(value);
  // Whoever still reads the last result must be done before it is overwritten.
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (lane == 0) {
    part[group] = value;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  return simd_sum(lane < groups ? part[lane] : 0);
}

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
[[kernel]] void custom_kernel_choose_rows_uint8_t_int32_t_int32_ts_int32_ts_int32_t(
  const device uint8_t* needed [[buffer(0)]],
  const constant int* needed_shape [[buffer(1)]],
  const device int32_t* written [[buffer(2)]],
  const constant int32_t& count [[buffer(3)]],
  const constant int32_t& latest [[buffer(4)]],
  device int32_t* positions [[buffer(5)]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]],
  uint simdgroups_per_threadgroup [[simdgroups_per_threadgroup]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint3 threads_per_threadgroup [[threads_per_threadgroup]]) {

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

}
