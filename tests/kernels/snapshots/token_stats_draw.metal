
inline uint mixed(uint x, uint seed, uint call) {
  for (uint round = 0; round < 2; round++) {
    x = (x * 0x9E3779B1u) ^ (round == 0 ? seed : call);
    x = (x ^ (x >> 16)) * 0x85EBCA6Bu;
    x = (x ^ (x >> 13)) * 0xC2B2AE35u;
    x = x ^ (x >> 16);
  }
  return x;
}

inline float gumbel(uint bits) {
  float low = (float(bits) + 0.5f) * 2.3283064365386963e-10f;
  float high = (float(0xFFFFFFFFu - bits) + 0.5f) * 2.3283064365386963e-10f;
  return -metal::log(low < high ? -metal::log(low) : -log1p(-high));
}

constant uint NO_TOKEN = 0xFFFFFFFFu;

// Statistics of the part of a row that was read.
struct Row {
  float top;       // largest logit
  float total;     // sum of exp(x - top)
  float weighted;  // sum of (x - top) exp(x - top)
  float best;      // largest allowed logit
  float second;
  uint token;
  float score;     // largest score
  float drawn_logit;
  uint drawn;
};

inline Row empty_row() {
  Row row;
  row.top = row.best = row.second = row.score = row.drawn_logit = -INFINITY;
  row.total = row.weighted = 0.0f;
  row.token = row.drawn = NO_TOKEN;
  return row;
}

// Rescale the sums to a larger top. A sum that underflows is set to zero, because 0 * -inf would be NaN.
inline void raise_top(thread Row& row, float top) {
  float shift = row.total == 0.0f ? 0.0f : row.top - top;
  float scale = metal::exp(shift);
  row.weighted = scale > 0.0f ? scale * (row.weighted + row.total * shift) : 0.0f;
  row.total *= scale;
  row.top = top;
}

inline void merge_lanes(thread Row& row) {
  raise_top(row, simd_max(row.top));
  row.total = simd_sum(row.total);
  row.weighted = simd_sum(row.weighted);

  float best = simd_max(row.best);
  uint token = simd_min(row.best == best ? row.token : NO_TOKEN);
  row.second = simd_max(row.token == token ? row.second : row.best);
  row.best = best;
  row.token = token;

  float score = simd_max(row.score);
  uint drawn = simd_min(row.score == score ? row.drawn : NO_TOKEN);
  row.drawn_logit = simd_max(row.drawn == drawn ? row.drawn_logit : -INFINITY);
  row.score = score;
  row.drawn = drawn;
}

// NaN if any logit was NaN: the comparison with 0 is False then, and the division gives NaN.
inline float probability(thread const Row& row, float x) {
  return row.total == 0.0f ? 0.0f : metal::exp(x - row.top) / row.total;
}
[[kernel]] void custom_kernel_token_stats_draw_bfloat16_t_int32_ts_int32_t_float_uint32_t_uint32_t_int32_t_float_float_float_int32_t_float(
  const device bfloat16_t* logits [[buffer(0)]],
  const constant int* logits_shape [[buffer(1)]],
  const constant int32_t& excluded [[buffer(2)]],
  const device int32_t* positions [[buffer(3)]],
  const device float* temperatures [[buffer(4)]],
  const device uint32_t* seeds [[buffer(5)]],
  const device uint32_t* calls [[buffer(6)]],
  device int32_t* token [[buffer(7)]],
  device float* p [[buffer(8)]],
  device float* p2 [[buffer(9)]],
  device float* entropy [[buffer(10)]],
  device int32_t* sampled [[buffer(11)]],
  device float* p_sampled [[buffer(12)]],
  uint simdgroup_index_in_threadgroup [[simdgroup_index_in_threadgroup]],
  uint simdgroups_per_threadgroup [[simdgroups_per_threadgroup]],
  uint thread_index_in_simdgroup [[thread_index_in_simdgroup]],
  uint thread_index_in_threadgroup [[thread_index_in_threadgroup]],
  uint3 threadgroup_position_in_grid [[threadgroup_position_in_grid]],
  uint3 threads_per_threadgroup [[threads_per_threadgroup]]) {

  uint n = threadgroup_position_in_grid.x;
  uint lane = thread_index_in_simdgroup;
  uint group = simdgroup_index_in_threadgroup;
  uint width = uint(logits_shape[1]);
  uint barred = uint(excluded);
  size_t base = size_t(n) * size_t(width);
  threadgroup Row shared[32];
  uint seed = seeds[n];
  uint call = calls[n];
  uint first_index = uint(positions[n]) * width;
  float heat = temperatures[n];

  Row row = empty_row();
  uint stride = threads_per_threadgroup.x * 4;
  for (uint start = thread_index_in_threadgroup * 4; start < width; start += stride) {
    float x[4];
    float top = row.top;
    for (uint j = 0; j < 4; j++) {
      x[j] = start + j < width ? static_cast<float>(logits[base + start + j]) : -INFINITY;
      top = metal::max(top, x[j]);
    }
    if (top > row.top) {
      raise_top(row, top);
    }
    for (uint j = 0; j < 4; j++) {
      uint id = start + j;
      if (x[j] != -INFINITY) {
        float shifted = x[j] - row.top;
        float weight = metal::exp(shifted);
        row.total += weight;
        row.weighted += weight > 0.0f ? weight * shifted : 0.0f;
      }
      if (id >= width || id == barred) {
        continue;
      }
      if (x[j] > row.best) {
        row.second = row.best;
        row.best = x[j];
        row.token = id;
      } else {
        row.second = metal::max(row.second, x[j]);
      }
      float score = heat > 0.0f ? x[j] / heat + gumbel(mixed(first_index + id, seed, call)) : x[j];
      if (score > row.score) {
        row.score = score;
        row.drawn_logit = x[j];
        row.drawn = id;
      }
    }
  }

  merge_lanes(row);
  if (lane == 0) {
    shared[group] = row;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (group == 0) {
    row = empty_row();
    if (lane < simdgroups_per_threadgroup) {
      row = shared[lane];
    }
    merge_lanes(row);
    if (lane == 0) {
      uint lowest = barred == 0 && width > 1 ? 1 : 0;
      if (row.token == NO_TOKEN) {
        row.token = lowest;
        row.best = static_cast<float>(logits[base + lowest]);
      }
      if (row.drawn == NO_TOKEN) {
        row.drawn = lowest;
        row.drawn_logit = static_cast<float>(logits[base + lowest]);
      }
      token[n] = int(row.token);
      p[n] = probability(row, row.best);
      p2[n] = probability(row, row.second);
      entropy[n] = row.total == 0.0f ? INFINITY : metal::log(row.total) - row.weighted / row.total;
      sampled[n] = int(row.drawn);
      p_sampled[n] = probability(row, row.drawn_logit);
    }
  }

}
