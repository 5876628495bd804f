
inline int group_min(int value, threadgroup int* part, uint lane, uint group, uint groups) {
  value = simd_min(value);
  // Whoever still reads the last result must be done before it is overwritten.
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (lane == 0) {
    part[group] = value;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  return simd_min(lane < groups ? part[lane] : 0x7FFFFFFF);
}

inline float group_max(float value, threadgroup float* part, uint lane, uint group, uint groups) {
  value = simd_max(value);
  // Whoever still reads the last result must be done before it is overwritten.
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (lane == 0) {
    part[group] = value;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  return simd_max(lane < groups ? part[lane] : -INFINITY);
}
template <bool BEST_ALWAYS, bool FORCE_LIKELIEST>
[[kernel]] void custom_kernel_accept_entropy__1_1_int32_t_float_int32_t_float_int32_t_int32_tc_int32_tc_floatc_floats_int32_t(
  const device int32_t* token [[buffer(0)]],
  const device float* entropy [[buffer(1)]],
  const device int32_t* sampled [[buffer(2)]],
  const device float* p_sampled [[buffer(3)]],
  const device int32_t* positions [[buffer(4)]],
  const constant int* positions_shape [[buffer(5)]],
  const constant int32_t* table [[buffer(6)]],
  const constant int* table_shape [[buffer(7)]],
  const constant int32_t* ends [[buffer(8)]],
  const constant int* ends_shape [[buffer(9)]],
  const constant float* bounds [[buffer(10)]],
  const constant float& level [[buffer(11)]],
  device int32_t* out [[buffer(12)]],
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
  int rows = positions_shape[0];
  int blocks = table_shape[0];
  int finals = ends_shape[0];
  int nowhere = 0x7FFFFFFF;
  threadgroup int whole[32];
  threadgroup float real[32];

  int focus = nowhere;
  for (int b = me; b < blocks; b += threads) {
    if (table[b * 6 + 3] == 2 && table[b * 6 + 2] > 0) {
      focus = metal::min(focus, b);
    }
  }
  focus = group_min(focus, whole, lane, group, groups);
  int start = focus < blocks ? table[focus * 6] : 0;
  int stop = focus < blocks ? table[focus * 6 + 1] : 0;

  // The best row of all, the best of the focus, and for the factor rule the rank of every row.
  float top = -INFINITY;
  float top_inside = -INFINITY;
  int failed = rows - 1;
  for (int i = me; i < rows; i += threads) {
    float score = -entropy[i];
    top = metal::max(top, score);
    if (positions[i] >= start && positions[i] < stop) {
      top_inside = metal::max(top_inside, score);
    }
    if (false) {
      int rank = 0;
      for (int j = 0; j < rows; j++) {
        float other = p_sampled[j];
        rank += other > score || (other == score && j < i) ? 1 : 0;
      }
      out[i] = rank;
      if (rank < rows && score < bounds[rank]) {
        failed = metal::min(failed, rank);
      }
    }
  }
  top = group_max(top, real, lane, group, groups);
  top_inside = group_max(top_inside, real, lane, group, groups);
  failed = group_min(failed, whole, lane, group, groups);
  int accepted = failed == rows - 1 ? rows : failed;

  int best = nowhere;
  int best_inside = nowhere;
  for (int i = me; i < rows; i += threads) {
    float score = -entropy[i];
    best = score == top ? metal::min(best, i) : best;
    if (positions[i] >= start && positions[i] < stop && score == top_inside) {
      best_inside = metal::min(best_inside, i);
    }
  }
  best = group_min(best, whole, lane, group, groups);
  best_inside = group_min(best_inside, whole, lane, group, groups);

  int none_passed = 1;
  for (int i = me; i < rows; i += threads) {
    float score = -entropy[i];
    bool passed = score >= level;
    passed = passed || (BEST_ALWAYS && i == best);
    out[i] = passed ? sampled[i] : -1;
    if (passed && positions[i] >= start && positions[i] < stop) {
      none_passed = 0;
    }
  }
  none_passed = group_min(none_passed, whole, lane, group, groups);

  int cut = table[(blocks - 1) * 6 + 1];
  for (int i = me; i < rows; i += threads) {
    if (none_passed == 1 && i == best_inside) {
      out[i] = FORCE_LIKELIEST ? token[i] : sampled[i];
    }
    for (int e = 0; e < finals; e++) {
      if (out[i] >= 0 && out[i] == ends[e]) {
        cut = metal::min(cut, positions[i] + 1);
      }
    }
    out[rows + i] = token[i];
    out[2 * rows + i] = as_type<int>(entropy[i]);
  }
  cut = group_min(cut, whole, lane, group, groups);

  threadgroup_barrier(mem_flags::mem_device);
  for (int b = me; b < blocks; b += threads) {
    int from = table[b * 6];
    int to = metal::min(table[b * 6 + 1], cut);
    int masks = 0;
    if (table[b * 6 + 3] == 0) {
      masks = metal::min(table[b * 6 + 2], metal::max(to - from, 0));
    } else {
      for (int i = 0; i < rows; i++) {
        masks += out[i] < 0 && positions[i] >= from && positions[i] < to ? 1 : 0;
      }
    }
    out[3 * rows + b] = masks;
  }
  threadgroup_barrier(mem_flags::mem_device);
  for (int b = me; b < blocks; b += threads) {
    int state = table[b * 6 + 3];
    if (b > 0) {
      int before = b - 1;
      int left = out[3 * rows + before];
      int filled = left <= table[before * 6 + 5] ? 2 : 1;
      if (state > 0) {
        state = metal::max(state, filled);
      } else if (table[before * 6 + 3] > 0 && left <= table[before * 6 + 4]) {
        state = filled;
      }
    }
    out[3 * rows + blocks + b] = state;
  }

}

template [[host_name("custom_kernel_accept_entropy__1_1_int32_t_float_int32_t_float_int32_t_int32_tc_int32_tc_floatc_floats_int32_t")]] [[kernel]] decltype(custom_kernel_accept_entropy__1_1_int32_t_float_int32_t_float_int32_t_int32_tc_int32_tc_floatc_floats_int32_t<1, 1>) custom_kernel_accept_entropy__1_1_int32_t_float_int32_t_float_int32_t_int32_tc_int32_tc_floatc_floats_int32_t<1, 1>;
