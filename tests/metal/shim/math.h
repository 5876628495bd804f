// Mathematical functions of scalars and vectors. Narrower types are computed in float, as bf16_math.h does.
#pragma once
#include "vectors.h"
// ---- math
namespace metal {
#ifdef MSL_ULP_NOISE // perturb transcendental results by up to N ulp (deterministic in the argument)
inline float msl_noise(float y, float x) {
  uint u = __builtin_bit_cast(uint, y), e = (u >> 23) & 255;
  if (e == 0 || e == 255 || y == 0.0f || y == 1.0f) return y;
  uint h = (__builtin_bit_cast(uint, x) ^ (u * 2654435761u)) * 2246822519u;
  return __builtin_bit_cast(float, uint(int(u) + int((h >> 8) % (2 * MSL_ULP_NOISE + 1)) - MSL_ULP_NOISE));
}
#else
constexpr float msl_noise(float y, float) { return y; }
#endif
#if MSL_STRICT
#define MSL_LIBM1(n) float msl_##n(float);
#define MSL_LIBM2(n) float msl_##n(float, float);
#else
#define MSL_LIBM1(n) \
  inline float msl_##n(float x) { return __builtin_##n##f(x); }
#define MSL_LIBM2(n) \
  inline float msl_##n(float x, float y) { return __builtin_##n##f(x, y); }
#endif
MSL_LIBM1(acos)
MSL_LIBM1(acosh)
MSL_LIBM1(asin)
MSL_LIBM1(asinh)
MSL_LIBM1(atan)
MSL_LIBM1(atanh)
MSL_LIBM1(ceil)
MSL_LIBM1(cos)
MSL_LIBM1(cosh)
MSL_LIBM1(exp)
MSL_LIBM1(exp2)
MSL_LIBM1(fabs)
MSL_LIBM1(floor)
MSL_LIBM1(log)
MSL_LIBM1(log10)
MSL_LIBM1(log2)
MSL_LIBM1(rint)
MSL_LIBM1(round)
MSL_LIBM1(sin)
MSL_LIBM1(sinh)
MSL_LIBM1(sqrt)
MSL_LIBM1(tan)
MSL_LIBM1(tanh)
MSL_LIBM1(trunc)
MSL_LIBM2(atan2)
MSL_LIBM2(fmod)
MSL_LIBM2(pow)
MSL_LIBM2(fmax)
MSL_LIBM2(fmin)
MSL_LIBM2(copysign)
MSL_LIBM2(nextafter)
inline float msl_exp10(float x) { return msl_pow(10.0f, x); }
inline float msl_rsqrt(float x) { return 1.0f / msl_sqrt(x); }
inline float msl_fract(float x) {
  float r = x - msl_floor(x);
  return r < 1.0f ? r : 0.99999994f;
}
inline float msl_sinpi(float x) { return msl_sin(x * M_PI_F); }
inline float msl_cospi(float x) { return msl_cos(x * M_PI_F); }
inline float msl_tanpi(float x) { return msl_tan(x * M_PI_F); }
inline float msl_divide(float x, float y) { return x / y; }
inline float msl_powr(float x, float y) { return msl_pow(x, y); }
inline float msl_fma(float x, float y, float z) {
#if MSL_STRICT
  return x * y + z;
#else
  return __builtin_fmaf(x, y, z);
#endif
}
// the compiler builtins that MLX's bf16_math.h calls
#define __METAL_MAYBE_FAST_MATH__ 0
#define __METAL_FAST_MATH__ 1
#define __METAL_PRECISE_MATH__ 0
} // namespace metal
#define MSL_B1(n) \
  inline float __metal_##n(float x, int) { return metal::msl_noise(metal::msl_##n(x), x); }
#define MSL_B1X(n) \
  inline float __metal_##n(float x, int) { return metal::msl_##n(x); }
#define MSL_B2(n) \
  inline float __metal_##n(float x, float y, int = 0) { return metal::msl_noise(metal::msl_##n(x, y), x); }
#define MSL_B2X(n) \
  inline float __metal_##n(float x, float y, int = 0) { return metal::msl_##n(x, y); }
MSL_B1(acos)
MSL_B1(acosh)
MSL_B1(asin)
MSL_B1(asinh)
MSL_B1(atan)
MSL_B1(atanh)
MSL_B1X(ceil)
MSL_B1(cos)
MSL_B1(cosh)
MSL_B1(cospi)
MSL_B1(exp)
MSL_B1(exp10)
MSL_B1(exp2)
MSL_B1X(fabs)
MSL_B1X(floor)
MSL_B1X(fract)
MSL_B1(log)
MSL_B1(log10)
MSL_B1(log2)
MSL_B1X(rint)
MSL_B1X(round)
MSL_B1(rsqrt)
MSL_B1(sin)
MSL_B1(sinh)
MSL_B1(sinpi)
MSL_B1(sqrt)
MSL_B1(tan)
MSL_B1(tanh)
MSL_B1(tanpi)
MSL_B1X(trunc)
MSL_B2(atan2)
MSL_B2(divide)
MSL_B2X(fmax)
MSL_B2X(fmin)
MSL_B2(fmod)
MSL_B2(pow)
MSL_B2(powr)
MSL_B2X(nextafter)
MSL_B2X(copysign)
inline float __metal_fmax3(float a, float b, float c, int) { return metal::msl_fmax(metal::msl_fmax(a, b), c); }
inline float __metal_fmin3(float a, float b, float c, int) { return metal::msl_fmin(metal::msl_fmin(a, b), c); }
inline float __metal_fmedian3(float a, float b, float c, int) {
  return metal::msl_fmax(metal::msl_fmin(a, b), metal::msl_fmin(metal::msl_fmax(a, b), c));
}
inline float __metal_fma(float a, float b, float c) { return metal::msl_fma(a, b, c); }
#if MSL_STRICT
float __metal_frexp(float x, thread int* e);
float __metal_ldexp(float x, int k, int);
#else
inline float __metal_frexp(float x, int* e) { return __builtin_frexpf(x, e); }
inline float __metal_ldexp(float x, int k, int) { return __builtin_ldexpf(x, k); }
#endif

namespace metal {
#define MSL_F1(n)                                                  \
  inline float n(float x) { return __metal_##n(x, 0); }            \
  inline half n(half x) { return half(__metal_##n(float(x), 0)); } \
  template <class T, int N> inline vec<T, N> n(vec<T, N> x) {      \
    for (int i = 0; i < N; i++) x.v[i] = n(x.v[i]);                \
    return x;                                                      \
  }
#define MSL_F2(n)                                                                    \
  inline float n(float x, float y) { return __metal_##n(x, y, 0); }                  \
  inline half n(half x, half y) { return half(__metal_##n(float(x), float(y), 0)); } \
  template <class T, int N> inline vec<T, N> n(vec<T, N> x, vec<T, N> y) {           \
    for (int i = 0; i < N; i++) x.v[i] = n(x.v[i], y.v[i]);                          \
    return x;                                                                        \
  }
#define MSL_FMATH                                                                                                    \
  MSL_F1(acos)                                                                                                       \
  MSL_F1(acosh) MSL_F1(asin) MSL_F1(asinh) MSL_F1(atan) MSL_F1(atanh) MSL_F1(ceil) MSL_F1(cos) MSL_F1(cosh)          \
      MSL_F1(cospi) MSL_F1(exp) MSL_F1(exp10) MSL_F1(exp2) MSL_F1(fabs) MSL_F1(floor) MSL_F1(fract) MSL_F1(log)      \
          MSL_F1(log10) MSL_F1(log2) MSL_F1(rint) MSL_F1(round) MSL_F1(rsqrt) MSL_F1(sin) MSL_F1(sinh) MSL_F1(sinpi) \
              MSL_F1(sqrt) MSL_F1(tan) MSL_F1(tanh) MSL_F1(tanpi) MSL_F1(trunc) MSL_F2(atan2) MSL_F2(divide)         \
                  MSL_F2(fmax) MSL_F2(fmin) MSL_F2(fmod) MSL_F2(pow) MSL_F2(powr)
MSL_FMATH
MSL_F2(nextafter)
MSL_F2(copysign)
namespace fast {
MSL_FMATH
}
namespace precise {
MSL_FMATH
}
inline float fma(float a, float b, float c) { return msl_fma(a, b, c); }
inline half fma(half a, half b, half c) { return half(float(a) * float(b) + float(c)); }
template <class T, int N> inline vec<T, N> fma(vec<T, N> a, vec<T, N> b, vec<T, N> c) {
  for (int i = 0; i < N; i++) a.v[i] = fma(a.v[i], b.v[i], c.v[i]);
  return a;
}
inline float sincos(float x, thread float& c) {
  c = cos(x);
  return sin(x);
}
inline half sincos(half x, thread half& c) {
  c = cos(x);
  return sin(x);
}
inline float ldexp(float x, int k) { return __metal_ldexp(x, k, 0); }
inline half ldexp(half x, int k) { return half(__metal_ldexp(float(x), k, 0)); }
inline float frexp(float x, thread int& e) { return __metal_frexp(x, &e); }
inline float modf(float x, thread float& ip) {
  ip = trunc(x);
  return x - ip;
}

// min/max/abs/clamp: overloads, not templates, so that max(float, int) is ambiguous as it is in MSL
#define MSL_MM(t)                                     \
  constexpr t min(t a, t b) { return b < a ? b : a; } \
  constexpr t max(t a, t b) { return a < b ? b : a; }
MSL_MM(char)
MSL_MM(uchar)
MSL_MM(short)
MSL_MM(ushort)
MSL_MM(int)
MSL_MM(uint)
MSL_MM(long)
MSL_MM(ulong)
#undef MSL_MM
inline float min(float a, float b) { return msl_fmin(a, b); }
inline float max(float a, float b) { return msl_fmax(a, b); }
inline half min(half a, half b) { return half(msl_fmin(float(a), float(b))); }
inline half max(half a, half b) { return half(msl_fmax(float(a), float(b))); }
template <class T, int N> inline vec<T, N> min(vec<T, N> a, vec<T, N> b) {
  for (int i = 0; i < N; i++) a.v[i] = min(a.v[i], b.v[i]);
  return a;
}
template <class T, int N> inline vec<T, N> max(vec<T, N> a, vec<T, N> b) {
  for (int i = 0; i < N; i++) a.v[i] = max(a.v[i], b.v[i]);
  return a;
}
template <class T> inline T min3(T a, T b, T c) { return min(min(a, b), c); }
template <class T> inline T max3(T a, T b, T c) { return max(max(a, b), c); }
template <class T> inline T median3(T a, T b, T c) { return max(min(a, b), min(max(a, b), c)); }
template <class T> inline T clamp(T x, T lo, T hi) { return min(max(x, lo), hi); }
template <class T, class = enable_if_t<is_integral<T>::value && is_signed<T>::value>>
constexpr make_unsigned_t<T> msl_uabs(T x) {
  return make_unsigned_t<T>(x < 0 ? -x : x);
}
template <class T, class = enable_if_t<is_integral<T>::value>> constexpr T abs(T x) { return x < T(0) ? T(-x) : x; }
inline float abs(float x) { return msl_fabs(x); }
inline half abs(half x) { return half(msl_fabs(float(x))); }
template <class T, int N> inline vec<T, N> abs(vec<T, N> x) {
  for (int i = 0; i < N; i++) x.v[i] = abs(x.v[i]);
  return x;
}
inline float saturate(float x) { return min(max(x, 0.0f), 1.0f); }
inline half saturate(half x) { return min(max(x, half(0)), half(1)); }
template <class T, class = enable_if_t<is_floating_point<T>::value>> inline T sign(T x) {
  return x > T(0) ? T(1) : x < T(0) ? T(-1) : T(0);
}
inline float mix(float a, float b, float t) { return a + (b - a) * t; }
inline half mix(half a, half b, half t) { return a + (b - a) * t; }
inline float step(float e, float x) { return x < e ? 0.0f : 1.0f; }
template <class T> constexpr T select(T a, T b, bool c) { return c ? b : a; }
template <class T, int N> constexpr vec<T, N> select(vec<T, N> a, vec<T, N> b, vec<bool, N> c) {
  for (int i = 0; i < N; i++) a.v[i] = c.v[i] ? b.v[i] : a.v[i];
  return a;
}
inline bool isnan(float x) { return (__builtin_bit_cast(uint, x) & 0x7fffffffu) > 0x7f800000u; }
inline bool isinf(float x) { return (__builtin_bit_cast(uint, x) & 0x7fffffffu) == 0x7f800000u; }
inline bool isfinite(float x) { return (__builtin_bit_cast(uint, x) & 0x7fffffffu) < 0x7f800000u; }
inline bool signbit(float x) { return (__builtin_bit_cast(uint, x) >> 31) != 0; }
inline bool isnan(half x) { return isnan(float(x)); }
inline bool isinf(half x) { return isinf(float(x)); }
inline bool isfinite(half x) { return isfinite(float(x)); }
inline bool isnan(bfloat x) { return isnan(float(x)); }
inline bool isinf(bfloat x) { return isinf(float(x)); }
inline bool isfinite(bfloat x) { return isfinite(float(x)); }
template <int N> inline float dot(vec<float, N> a, vec<float, N> b) {
  float s = 0;
  for (int i = 0; i < N; i++) s += a.v[i] * b.v[i];
  return s;
}
template <int N> inline half dot(vec<half, N> a, vec<half, N> b) {
  half s = 0;
  for (int i = 0; i < N; i++) s += a.v[i] * b.v[i];
  return s;
}
template <class T, int N> inline T length(vec<T, N> a) { return sqrt(dot(a, a)); }
template <class T, int N> inline vec<T, N> normalize(vec<T, N> a) { return a * rsqrt(dot(a, a)); }
// integers
template <class T> constexpr T popcount(T x) {
  T n = 0;
  for (unsigned i = 0; i < sizeof(T) * 8; i++) n += (x >> i) & 1;
  return n;
}
template <class T> constexpr T clz(T x) {
  T n = 0;
  for (int i = int(sizeof(T) * 8) - 1; i >= 0 && !((x >> i) & 1); i--) n++;
  return n;
}
template <class T> constexpr T ctz(T x) {
  T n = 0;
  for (unsigned i = 0; i < sizeof(T) * 8 && !((x >> i) & 1); i++) n++;
  return n;
}
template <class T> constexpr T reverse_bits(T x) {
  T r = 0;
  for (unsigned i = 0; i < sizeof(T) * 8; i++) r |= T(((x >> i) & 1)) << (sizeof(T) * 8 - 1 - i);
  return r;
}
template <class T> constexpr T rotate(T v, T i) {
  constexpr unsigned w = sizeof(T) * 8;
  i &= w - 1;
  return i ? T((v << i) | (v >> (w - i))) : v;
}
constexpr uint mulhi(uint a, uint b) { return uint((ulong(a) * b) >> 32); }
constexpr int mulhi(int a, int b) { return int((long(a) * b) >> 32); }
template <class T, class = enable_if_t<is_integral<T>::value>> constexpr T extract_bits(T x, uint off, uint bits) {
  return bits == 0 ? T(0) : T(T(x << (sizeof(T) * 8 - bits - off)) >> (sizeof(T) * 8 - bits));
}
} // namespace metal
