
inline int group_min(int value, threadgroup int* part, uint lane, uint group, uint groups) {
  value = simd_min(value);
  // A thread that still reads the last result must finish before it is overwritten.
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (lane == 0) {
    part[group] = value;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  return simd_min(lane < groups ? part[lane] : 0x7FFFFFFF);
}

inline float group_max(float value, threadgroup float* part, uint lane, uint group, uint groups) {
  value = simd_max(value);
  // A thread that still reads the last result must finish before it is overwritten.
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (lane == 0) {
    part[group] = value;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  return simd_max(lane < groups ? part[lane] : -INFINITY);
}
template <bool BEST_ALWAYS, bool PROGRESS, bool FORCE_LIKELIEST>
[[kernel]] void custom_kernel_accept_entropy_noisy__1_1_1_int32_t_float_float_float_int32_t_float_int32_t_int32_tc_float_floatc_floats_floats_int32_ts_int32_t(
  const device int32_t* token [[buffer(0)]],
  const device float* p [[buffer(1)]],
  const device float* p2 [[buffer(2)]],
  const device float* entropy [[buffer(3)]],
  const device int32_t* sampled [[buffer(4)]],
  const device float* p_sampled [[buffer(5)]],
  const device int32_t* positions [[buffer(6)]],
  const constant int* positions_shape [[buffer(7)]],
  const constant int32_t* focus [[buffer(8)]],
  const device float* noise [[buffer(9)]],
  const constant float* bounds [[buffer(10)]],
  const constant float& threshold [[buffer(11)]],
  const constant float& heat [[buffer(12)]],
  const constant int32_t& most [[buffer(13)]],
  device int32_t* out [[buffer(14)]],
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
  int start = focus[0];
  int stop = focus[1];
  int nowhere = 0x7FFFFFFF;
  threadgroup int whole[32];
  threadgroup float real[32];

  // The best row of all, the best of the focus, and for rules with a count the rank of every row.
  float top = -INFINITY;
  float top_inside = -INFINITY;
  int failed = rows - 1;
  for (int i = me; i < rows; i += threads) {
    float score = (-entropy[i]) / heat + noise[i];
    top = metal::max(top, score);
    if (positions[i] >= start && positions[i] < stop) {
      top_inside = metal::max(top_inside, score);
    }
    
  }
  top = group_max(top, real, lane, group, groups);
  top_inside = group_max(top_inside, real, lane, group, groups);
  

  int best = nowhere;
  int best_inside = nowhere;
  for (int i = me; i < rows; i += threads) {
    float score = (-entropy[i]) / heat + noise[i];
    best = score == top ? metal::min(best, i) : best;
    if (positions[i] >= start && positions[i] < stop && score == top_inside) {
      best_inside = metal::min(best_inside, i);
    }
  }
  best = group_min(best, whole, lane, group, groups);
  best_inside = group_min(best_inside, whole, lane, group, groups);

  int none_passed = PROGRESS ? 1 : 0;
  for (int i = me; i < rows; i += threads) {
    float score = (-entropy[i]) / heat + noise[i];
    bool passed = score >= threshold;
    passed = passed || (BEST_ALWAYS && i == best);
    out[i] = passed ? sampled[i] : -1;
    if (passed && positions[i] >= start && positions[i] < stop) {
      none_passed = 0;
    }
  }
  none_passed = group_min(none_passed, whole, lane, group, groups);

  for (int i = me; i < rows; i += threads) {
    if (none_passed == 1 && i == best_inside) {
      out[i] = FORCE_LIKELIEST ? token[i] : sampled[i];
    }
    out[rows + i] = token[i];
    out[2 * rows + i] = as_type<int>(entropy[i]);
  }

}

template [[host_name("custom_kernel_accept_entropy_noisy__1_1_1_int32_t_float_float_float_int32_t_float_int32_t_int32_tc_float_floatc_floats_floats_int32_ts_int32_t")]] [[kernel]] decltype(custom_kernel_accept_entropy_noisy__1_1_1_int32_t_float_float_float_int32_t_float_int32_t_int32_tc_float_floatc_floats_floats_int32_ts_int32_t<1, 1, 1>) custom_kernel_accept_entropy_noisy__1_1_1_int32_t_float_float_float_int32_t_float_int32_t_int32_tc_float_floatc_floats_floats_int32_ts_int32_t<1, 1, 1>;
