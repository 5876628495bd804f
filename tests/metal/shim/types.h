// Address spaces, type traits, bfloat, limits.
#pragma once
// ---- address spaces, base types
#if MSL_STRICT
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#define device __global
#define constant __constant
#define threadgroup __local
#define thread __private
#else
#define device
#define constant
#define threadgroup
#define thread
typedef _Float16 half;
constexpr half operator""h(long double x) { return half(x); }
#endif
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef char int8_t; // -fsigned-char
typedef uchar uint8_t;
typedef short int16_t;
typedef ushort uint16_t;
typedef int int32_t;
typedef uint uint32_t;
typedef long int64_t; // 64 bits, as in MSL
typedef ulong uint64_t;
typedef __SIZE_TYPE__ size_t;
typedef __PTRDIFF_TYPE__ ptrdiff_t;

namespace metal { // ---------------------------------------------------------------- type traits
template <class T, T V> struct integral_constant {
  static constexpr constant T value = V;
  typedef T value_type;
  typedef integral_constant type;
  constexpr operator T() const { return V; }
};
template <bool B> using bool_constant = integral_constant<bool, B>;
typedef bool_constant<true> true_type;
typedef bool_constant<false> false_type;
template <class A, class B> struct is_same : false_type {};
template <class A> struct is_same<A, A> : true_type {};
template <bool, class T = void> struct enable_if {};
template <class T> struct enable_if<true, T> {
  typedef T type;
};
template <bool B, class T = void> using enable_if_t = typename enable_if<B, T>::type;
template <bool, class A, class B> struct conditional {
  typedef A type;
};
template <class A, class B> struct conditional<false, A, B> {
  typedef B type;
};
template <bool B, class X, class Y> using conditional_t = typename conditional<B, X, Y>::type;
template <class T> struct remove_const {
  typedef T type;
};
template <class T> struct remove_const<const T> {
  typedef T type;
};
template <class T> struct remove_volatile {
  typedef T type;
};
template <class T> struct remove_volatile<volatile T> {
  typedef T type;
};
template <class T> struct remove_cv {
  typedef typename remove_volatile<typename remove_const<T>::type>::type type;
};
template <class T> using remove_cv_t = typename remove_cv<T>::type;
template <class T> struct remove_reference {
  typedef T type;
};
template <class T> struct remove_reference<T&> {
  typedef T type;
};
template <class T> struct remove_reference<T&&> {
  typedef T type;
};
template <class T> using remove_reference_t = typename remove_reference<T>::type;
template <class T> T&& msl_declval();
template <class...> using void_t = void;
struct bfloat_t;
template <class T> struct msl_is_int : false_type {};
#define MSL_X(t) \
  template <> struct msl_is_int<t> : true_type {};
MSL_X(bool)
MSL_X(char)
MSL_X(uchar)
MSL_X(short)
MSL_X(ushort)
MSL_X(int)
MSL_X(uint)
MSL_X(long)
MSL_X(ulong)
#if !MSL_STRICT
MSL_X(signed char)
#endif
#undef MSL_X
template <class T> struct msl_is_fp : false_type {};
template <> struct msl_is_fp<float> : true_type {};
template <> struct msl_is_fp<half> : true_type {};
template <> struct msl_is_fp<bfloat_t> : true_type {};
template <class T> struct is_integral : msl_is_int<remove_cv_t<T>> {};
template <class T> struct is_floating_point : msl_is_fp<remove_cv_t<T>> {};
template <class T> struct is_arithmetic : bool_constant<is_integral<T>::value || is_floating_point<T>::value> {};
template <class T> struct is_scalar : is_arithmetic<T> {};
template <class T, bool = is_integral<T>::value> struct msl_signed : bool_constant<(T(-1) < T(0))> {};
template <class T> struct msl_signed<T, false> : is_floating_point<T> {};
template <class T> struct is_signed : msl_signed<remove_cv_t<T>> {};
template <class T> struct is_unsigned : bool_constant<is_integral<T>::value && !is_signed<T>::value> {};
template <class F, class T, class = void> struct is_convertible : false_type {};
template <class T> void msl_sink(T);
template <class F, class T> struct is_convertible<F, T, void_t<decltype(msl_sink<T>(msl_declval<F>()))>> : true_type {};
template <class T> struct make_unsigned {
  typedef T type;
};
template <> struct make_unsigned<int> {
  typedef uint type;
};
template <> struct make_unsigned<short> {
  typedef ushort type;
};
template <> struct make_unsigned<char> {
  typedef uchar type;
};
template <> struct make_unsigned<long> {
  typedef ulong type;
};
template <class T> using make_unsigned_t = typename make_unsigned<T>::type;
#define MSL_V(n) template <class T> static constexpr constant bool n##_v = n<T>::value;
MSL_V(is_integral)
MSL_V(is_floating_point)
MSL_V(is_arithmetic)
MSL_V(is_scalar)
MSL_V(is_signed)
MSL_V(is_unsigned)
#undef MSL_V
template <class A, class B> static constexpr constant bool is_same_v = is_same<A, B>::value;
template <class A, class B> static constexpr constant bool is_convertible_v = is_convertible<A, B>::value;
// ---- bfloat
// MSL: bfloat converts implicitly to float; only integers convert implicitly to bfloat (MLX's own
// kernels contain `AccT normalizer = 0` with AccT = bfloat).
constexpr ushort msl_f2bf(float f) {
  uint u = __builtin_bit_cast(uint, f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return ushort((u >> 16) | 0x40);
  return ushort((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
struct alignas(2) bfloat_t {
  ushort bits_;
  bfloat_t() = default;
  template <class S, class = enable_if_t<is_integral<S>::value>> constexpr bfloat_t(S f) : bits_(msl_f2bf(float(f))) {}
  template <class S, class = enable_if_t<is_same<S, float>::value || is_same<S, half>::value>, class = void>
  explicit constexpr bfloat_t(S f) : bits_(msl_f2bf(float(f))) {}
  struct raw {};
  constexpr bfloat_t(raw, ushort b) : bits_(b) {}
  constexpr operator float() const { return __builtin_bit_cast(float, uint(bits_) << 16); }
#if MSL_STRICT
  bfloat_t(const bfloat_t&) = default;
  constexpr bfloat_t(const constant bfloat_t& o) : bits_(o.bits_) {}
  bfloat_t& operator=(const bfloat_t&) = default;
  bfloat_t& operator=(const constant bfloat_t& o) {
    bits_ = o.bits_;
    return *this;
  }
  constexpr operator float() const constant { return __builtin_bit_cast(float, uint(bits_) << 16); }
#endif
};
#define MSL_BFOP(op)                                                                                               \
  constexpr bfloat_t operator op(bfloat_t a, bfloat_t b) { return bfloat_t(float(a) op float(b)); }                \
  template <class I, class = enable_if_t<is_integral<I>::value>> constexpr bfloat_t operator op(bfloat_t a, I b) { \
    return bfloat_t(float(a) op float(bfloat_t(b)));                                                               \
  }                                                                                                                \
  template <class I, class = enable_if_t<is_integral<I>::value>> constexpr bfloat_t operator op(I a, bfloat_t b) { \
    return bfloat_t(float(bfloat_t(a)) op float(b));                                                               \
  }                                                                                                                \
  constexpr float operator op(bfloat_t a, float b) { return float(a) op b; }                                       \
  constexpr float operator op(float a, bfloat_t b) { return a op float(b); }                                       \
  void operator op(bfloat_t, half) = delete; /* bfloat and half do not mix in MSL */                               \
  void operator op(half, bfloat_t) = delete;                                                                       \
  template <class S> bfloat_t& operator op## = (bfloat_t & a, S b) {                                               \
    a = a op b;                                                                                                    \
    return a;                                                                                                      \
  }
MSL_BFOP(+)
MSL_BFOP(-)
MSL_BFOP(*)
MSL_BFOP(/)
#undef MSL_BFOP
constexpr bfloat_t operator-(bfloat_t a) { return bfloat_t(bfloat_t::raw(), ushort(a.bits_ ^ 0x8000)); }
#define MSL_BFCMP(op)                                                                        \
  constexpr bool operator op(bfloat_t a, bfloat_t b) { return float(a) op float(b); }        \
  template <class S, class = enable_if_t<is_integral<S>::value || is_same<S, float>::value>> \
  constexpr bool operator op(bfloat_t a, S b) {                                              \
    return float(a) op float(b);                                                             \
  }                                                                                          \
  template <class S, class = enable_if_t<is_integral<S>::value || is_same<S, float>::value>> \
  constexpr bool operator op(S a, bfloat_t b) {                                              \
    return float(a) op float(b);                                                             \
  }
MSL_BFCMP(<)
MSL_BFCMP(>)
MSL_BFCMP(<=)
MSL_BFCMP(>=)
MSL_BFCMP(==)
MSL_BFCMP(!=)
#undef MSL_BFCMP
} // namespace metal
typedef metal::bfloat_t bfloat;
constexpr bfloat operator"" bf(long double x) { return bfloat(float(x)); }
// ---- limits, constants
namespace metal {
template <class T> struct numeric_limits;
#define MSL_LIM(t, mn, mx)                                                                                   \
  template <> struct numeric_limits<t> {                                                                     \
    static constexpr t min() { return mn; }                                                                  \
    static constexpr t max() { return mx; }                                                                  \
    static constexpr t lowest() { return mn; }                                                               \
    static constexpr constant bool is_integer = true;                                                        \
    static constexpr constant int digits = int(sizeof(t) * 8) - int(static_cast<t>(-1) < static_cast<t>(0)); \
  };
MSL_LIM(bool, false, true)
MSL_LIM(char, -128, 127)
MSL_LIM(uchar, 0, 255)
MSL_LIM(short, -32768, 32767)
MSL_LIM(ushort, 0, 65535)
#if !MSL_STRICT
MSL_LIM(signed char, -128, 127)
#endif
MSL_LIM(int, -2147483647 - 1, 2147483647)
MSL_LIM(uint, 0, 4294967295u)
MSL_LIM(long, -9223372036854775807l - 1, 9223372036854775807l)
MSL_LIM(ulong, 0, 18446744073709551615ul)
#undef MSL_LIM
template <> struct numeric_limits<float> {
  static constexpr float min() { return __FLT_MIN__; }
  static constexpr float max() { return __FLT_MAX__; }
  static constexpr float lowest() { return -__FLT_MAX__; }
  static constexpr float epsilon() { return __FLT_EPSILON__; }
  static constexpr float infinity() { return __builtin_inff(); }
  static constexpr float quiet_NaN() { return __builtin_nanf(""); }
  static constexpr constant bool is_integer = false;
  static constexpr constant int digits = 24;
};
template <> struct numeric_limits<half> {
  static constexpr half min() { return half(6.103515625e-05f); }
  static constexpr half max() { return half(65504.0f); }
  static constexpr half lowest() { return half(-65504.0f); }
  static constexpr half epsilon() { return half(9.765625e-04f); }
  static constexpr half infinity() { return half(__builtin_inff()); }
  static constexpr half quiet_NaN() { return half(__builtin_nanf("")); }
  static constexpr constant bool is_integer = false;
  static constexpr constant int digits = 11;
};
template <> struct numeric_limits<bfloat> {
  static constexpr bfloat min() { return bfloat(bfloat::raw(), 0x0080); }
  static constexpr bfloat max() { return bfloat(bfloat::raw(), 0x7f7f); }
  static constexpr bfloat lowest() { return bfloat(bfloat::raw(), 0xff7f); }
  static constexpr bfloat epsilon() { return bfloat(bfloat::raw(), 0x3c00); }
  static constexpr bfloat infinity() { return bfloat(bfloat::raw(), 0x7f80); }
  static constexpr bfloat quiet_NaN() { return bfloat(bfloat::raw(), 0x7fc0); }
  static constexpr constant bool is_integer = false;
  static constexpr constant int digits = 8;
};
} // namespace metal
#undef INFINITY
#undef NAN
#define INFINITY (__builtin_inff())
#define NAN (__builtin_nanf(""))
#define HUGE_VALF (__builtin_inff())
#ifndef FLT_MAX
#define FLT_MAX __FLT_MAX__
#define FLT_MIN __FLT_MIN__
#define FLT_EPSILON __FLT_EPSILON__
#define MAXFLOAT __FLT_MAX__
#define INT_MAX 2147483647
#define INT_MIN (-2147483647 - 1)
#define UINT_MAX 4294967295u
#define M_PI_F 3.14159265358979323846f
#define M_E_F 2.71828182845904523536f
#define M_LN2_F 0.693147180559945309417f
#define M_LN10_F 2.30258509299404568402f
#define M_LOG2E_F 1.44269504088896340736f
#define M_SQRT2_F 1.41421356237309504880f
#endif
#define M_1_PI_F 0.31830988618379067154f
