template <typename T>
[[kernel]] void custom_kernel_refresh_rows__bfloat16_t_bfloat16_t_bfloat16_t_bfloat16_t_int32_t_float_bfloat16_t_bfloat16_t(
  const device bfloat16_t* queries [[buffer(0)]],
  const constant int* queries_shape [[buffer(1)]],
  const constant int64_t* queries_strides [[buffer(2)]],
  const device bfloat16_t* keys [[buffer(3)]],
  const constant int* keys_shape [[buffer(4)]],
  const constant int64_t* keys_strides [[buffer(5)]],
  const device bfloat16_t* values [[buffer(6)]],
  const constant int64_t* values_strides [[buffer(7)]],
  const device int32_t* positions [[buffer(8)]],
  const device float* table [[buffer(9)]],
  const constant int* table_shape [[buffer(10)]],
  device bfloat16_t* turned_queries [[buffer(11)]],
  device bfloat16_t* laid_rows [[buffer(12)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]],
  uint3 threads_per_grid [[threads_per_grid]]) {

  uint pair = thread_position_in_grid.x;
  uint row = thread_position_in_grid.y;
  uint pairs = threads_per_grid.x;
  uint rows = uint(queries_shape[2]);
  uint heads = uint(queries_shape[1]);
  uint kv_heads = uint(keys_shape[1]);
  uint each = heads + 2 * kv_heads;
  uint batches = uint(queries_shape[0]);
  uint batch = thread_position_in_grid.z / each;
  uint head = thread_position_in_grid.z % each;

  // The rotated part of a head pairs its halves; the rest of a head stays as it is.
  uint turned = uint(table_shape[2]);
  uint first = pair < turned ? pair : 2 * pair;
  uint second = pair < turned ? pair + turned : 2 * pair + 1;
  float c = 1.0f;
  float s = 0.0f;
  if (pair < turned && head < heads + kv_heads) {
    size_t angle = size_t(positions[row]) * 2 * turned + pair;
    c = table[angle];
    s = table[angle + turned];
  }
  if (head < heads) {
    size_t from = batch * queries_strides[0] + head * queries_strides[1] + row * queries_strides[2];
    float x = static_cast<float>(queries[from + first * queries_strides[3]]);
    float y = static_cast<float>(queries[from + second * queries_strides[3]]);
    size_t to = ((size_t(batch) * heads + head) * rows + row) * 2 * pairs;
    turned_queries[to + first] = static_cast<T>(x * c - y * s);
    turned_queries[to + second] = static_cast<T>(x * s + y * c);
  } else if (head < heads + kv_heads) {
    head -= heads;
    size_t from = batch * keys_strides[0] + head * keys_strides[1] + row * keys_strides[2];
    float x = static_cast<float>(keys[from + first * keys_strides[3]]);
    float y = static_cast<float>(keys[from + second * keys_strides[3]]);
    size_t to = ((size_t(batch) * kv_heads + head) * rows + row) * 2 * pairs;
    laid_rows[to + first] = static_cast<T>(x * c - y * s);
    laid_rows[to + second] = static_cast<T>(x * s + y * c);
  } else {
    head -= heads + kv_heads;
    size_t from = batch * values_strides[0] + head * values_strides[1] + row * values_strides[2];
    size_t to = (((size_t(batches) + batch) * kv_heads + head) * rows + row) * 2 * pairs;
    laid_rows[to + first] = values[from + first * values_strides[3]];
    laid_rows[to + second] = values[from + second * values_strides[3]];
  }

}

template [[host_name("custom_kernel_refresh_rows__bfloat16_t_bfloat16_t_bfloat16_t_bfloat16_t_int32_t_float_bfloat16_t_bfloat16_t")]] [[kernel]] decltype(custom_kernel_refresh_rows__bfloat16_t_bfloat16_t_bfloat16_t_bfloat16_t_int32_t_float_bfloat16_t_bfloat16_t<bfloat16_t>) custom_kernel_refresh_rows__bfloat16_t_bfloat16_t_bfloat16_t_bfloat16_t_int32_t_float_bfloat16_t_bfloat16_t<bfloat16_t>;
