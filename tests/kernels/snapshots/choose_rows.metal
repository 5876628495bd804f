template <int COUNT>
[[kernel]] void custom_kernel_choose_rows__8_uint8_t_int32_t_int32_t_uint8_t(
  const device uint8_t* needed [[buffer(0)]],
  const constant int* needed_shape [[buffer(1)]],
  const device int32_t* written [[buffer(2)]],
  device int32_t* positions [[buffer(3)]],
  device uint8_t* taken [[buffer(4)]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]],
  uint simdgroups_per_threadgroup [[simdgroups_per_threadgroup]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint threads_per_simdgroup [[threads_per_simdgroup]],
  uint3 threads_per_threadgroup [[threads_per_threadgroup]]) {

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

}

template [[host_name("custom_kernel_choose_rows__8_uint8_t_int32_t_int32_t_uint8_t")]] [[kernel]] decltype(custom_kernel_choose_rows__8_uint8_t_int32_t_int32_t_uint8_t<8>) custom_kernel_choose_rows__8_uint8_t_int32_t_int32_t_uint8_t<8>;
