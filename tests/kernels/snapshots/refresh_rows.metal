
constant float TWO_PI_HIGH = 6.28318548202514648f;
constant float TWO_PI_LOW = -1.74845553146951715e-7f;

// position * frequency modulo whole turns. A plain product has an error of 0.004 at position 100000. So the frequency
// has two parts, the product's rounding error is added back, and whole turns are subtracted without rounding.
inline float angle_of(float position, float high, float low) {
  float product = position * high;
  float rest = metal::fma(position, high, -product) + position * low;
  float turns = metal::rint(product / TWO_PI_HIGH);
  return metal::fma(-turns, TWO_PI_HIGH, product) + (rest - turns * TWO_PI_LOW);
}

// One pair (i, i + width / 2) of a row. In is a parameter because small inputs are in another address space.
template <typename T, typename In>
inline void write_pair(In x, size_t at, size_t apart, device T* out, size_t to, uint half_width, float c, float s) {
  float first = static_cast<float>(x[at]);
  float second = static_cast<float>(x[at + apart]);
  out[to] = static_cast<T>(first * c - second * s);
  out[to + half_width] = static_cast<T>(first * s + second * c);
}
template <typename T>
[[kernel]] void custom_kernel_refresh_rows__bfloat16_t_bfloat16_t_bfloat16_t_bfloat16_t_int32_t_float_bfloat16_t_bfloat16_t_bfloat16_t(
  const device bfloat16_t* queries [[buffer(0)]],
  const constant int* queries_shape [[buffer(1)]],
  const constant int64_t* queries_strides [[buffer(2)]],
  const device bfloat16_t* keys [[buffer(3)]],
  const constant int* keys_shape [[buffer(4)]],
  const constant int64_t* keys_strides [[buffer(5)]],
  const device bfloat16_t* values [[buffer(6)]],
  const constant int64_t* values_strides [[buffer(7)]],
  const device int32_t* positions [[buffer(8)]],
  const constant int64_t* positions_strides [[buffer(9)]],
  const device float* frequencies [[buffer(10)]],
  device bfloat16_t* turned_queries [[buffer(11)]],
  device bfloat16_t* turned_keys [[buffer(12)]],
  device bfloat16_t* laid_values [[buffer(13)]],
  uint3 thread_position_in_grid [[thread_position_in_grid]]) {

  uint pair = thread_position_in_grid.x;
  uint row = thread_position_in_grid.y;
  uint rows = uint(queries_shape[2]);
  uint half_width = uint(queries_shape[3]) / 2;
  uint heads = uint(queries_shape[1]);
  uint kv_heads = uint(keys_shape[1]);
  uint each = heads + 2 * kv_heads;
  uint batch = thread_position_in_grid.z / each;
  uint head = thread_position_in_grid.z % each;

  float c = 1.0f;
  float s = 0.0f;
  if (head < heads + kv_heads) {
    float position = float(positions[row * positions_strides[0]]);
    float angle = angle_of(position, frequencies[2 * pair], frequencies[2 * pair + 1]);
    c = metal::cos(angle);
    s = metal::sin(angle);
  }
  if (head < heads) {
    size_t at = batch * queries_strides[0] + head * queries_strides[1] + row * queries_strides[2] + pair * queries_strides[3];
    size_t to = ((size_t(batch) * heads + head) * rows + row) * 2 * half_width + pair;
    write_pair<T>(queries, at, half_width * queries_strides[3], turned_queries, to, half_width, c, s);
  } else if (head < heads + kv_heads) {
    head -= heads;
    size_t at = batch * keys_strides[0] + head * keys_strides[1] + row * keys_strides[2] + pair * keys_strides[3];
    size_t to = ((size_t(batch) * kv_heads + head) * rows + row) * 2 * half_width + pair;
    write_pair<T>(keys, at, half_width * keys_strides[3], turned_keys, to, half_width, c, s);
  } else {
    head -= heads + kv_heads;
    size_t at = batch * values_strides[0] + head * values_strides[1] + row * values_strides[2] + pair * values_strides[3];
    size_t to = ((size_t(batch) * kv_heads + head) * rows + row) * 2 * half_width + pair;
    laid_values[to] = values[at];
    laid_values[to + half_width] = values[at + half_width * values_strides[3]];
  }

}

template [[host_name("custom_kernel_refresh_rows__bfloat16_t_bfloat16_t_bfloat16_t_bfloat16_t_int32_t_float_bfloat16_t_bfloat16_t_bfloat16_t")]] [[kernel]] decltype(custom_kernel_refresh_rows__bfloat16_t_bfloat16_t_bfloat16_t_bfloat16_t_int32_t_float_bfloat16_t_bfloat16_t_bfloat16_t<bfloat16_t>) custom_kernel_refresh_rows__bfloat16_t_bfloat16_t_bfloat16_t_bfloat16_t_int32_t_float_bfloat16_t_bfloat16_t_bfloat16_t<bfloat16_t>;
