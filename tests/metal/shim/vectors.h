// Vector types (float2 ... float4 and others) and as_type.
#pragma once
#include "types.h"
// ---- vectors
namespace metal {
template <class T, int N> struct vec;
template <class T> struct msl_vec_info {
  static constexpr constant int n = 0;
  typedef T scalar;
};
template <class T, int N> struct msl_vec_info<vec<T, N>> {
  static constexpr constant int n = N;
  typedef T scalar;
};
template <class T> struct is_vector : bool_constant<(msl_vec_info<T>::n > 0)> {};
template <class T> static constexpr constant bool is_vector_v = is_vector<T>::value;

// scalar S may be mixed with a vector of T only if that does not narrow (clang's rule)
template <class S, class T> struct msl_scalar_ok
    : bool_constant<is_same<S, T>::value || (is_integral<S>::value && is_arithmetic<T>::value) ||
                    (is_same<S, half>::value && is_same<T, float>::value) ||
                    (is_same<S, bfloat>::value && is_same<T, float>::value)> {};

template <class T, int A, int... I> struct msl_swz { // proxy for v.xy etc; aliases the storage of the vector
  T d[A];
  typedef vec<T, int(sizeof...(I))> V;
  operator V() const { return V(d[I]...); }
#if MSL_STRICT
  operator V() const constant { return V(d[I]...); }
#endif
  msl_swz& operator=(V o) {
    int k = 0;
    ((d[I] = o.v[k++]), ...);
    return *this;
  }
  msl_swz& operator=(const msl_swz& o) { return *this = V(o); }
  template <class S> msl_swz& operator+=(S o) { return *this = V(*this) + o; }
  template <class S> msl_swz& operator-=(S o) { return *this = V(*this) - o; }
  template <class S> msl_swz& operator*=(S o) { return *this = V(*this) * o; }
  template <class S> msl_swz& operator/=(S o) { return *this = V(*this) / o; }
};
// copies are written out, because the swizzle proxies make the default ones unusable
template <class S> struct msl_is_swz : false_type {};
template <class T, int A, int... I> struct msl_is_swz<msl_swz<T, A, I...>> : true_type {};
#define MSL_SOP(op)                                                                        \
  template <class T, int A, int... I, class S, class = enable_if_t<!msl_is_swz<S>::value>> \
  auto operator op(const msl_swz<T, A, I...>& a, S b) {                                    \
    return typename msl_swz<T, A, I...>::V(a) op b;                                        \
  }                                                                                        \
  template <class T, int A, int... I, class S, class = enable_if_t<!msl_is_swz<S>::value>> \
  auto operator op(S a, const msl_swz<T, A, I...>& b) {                                    \
    return a op typename msl_swz<T, A, I...>::V(b);                                        \
  }                                                                                        \
  template <class T, int A, int... I, int B, int... J>                                     \
  auto operator op(const msl_swz<T, A, I...>& a, const msl_swz<T, B, J...>& b) {           \
    return typename msl_swz<T, A, I...>::V(a) op typename msl_swz<T, B, J...>::V(b);       \
  }
#if MSL_STRICT
#define MSL_VEC_STRICT(N, ...)                             \
  constexpr vec(const vec& o) : v{__VA_ARGS__} {}          \
  constexpr vec(const constant vec& o) : v{__VA_ARGS__} {} \
  constexpr vec& operator=(const vec& o) {                 \
    for (int i = 0; i < N; i++) v[i] = o.v[i];             \
    return *this;                                          \
  }                                                        \
  vec& operator=(const constant vec& o) {                  \
    for (int i = 0; i < N; i++) v[i] = o.v[i];             \
    return *this;                                          \
  }                                                        \
  constexpr const T operator[](int i) const constant { return v[i]; }
#else
#define MSL_VEC_STRICT(N, ...)                    \
  constexpr vec(const vec& o) : v{__VA_ARGS__} {} \
  constexpr vec& operator=(const vec& o) {        \
    for (int i = 0; i < N; i++) v[i] = o.v[i];    \
    return *this;                                 \
  }
#endif
#define MSL_VEC_COMMON(N)                         \
  vec() = default;                                \
  constexpr T& operator[](int i) { return v[i]; } \
  constexpr const T& operator[](int i) const { return v[i]; }

template <class T> struct alignas(sizeof(T) * 2) vec<T, 2> {
  union {
    struct {
      T x, y;
    };
    struct {
      T r, g;
    };
    T v[2];
    msl_swz<T, 2, 0, 1> xy;
    msl_swz<T, 2, 1, 0> yx;
    msl_swz<T, 2, 0, 0> xx;
    msl_swz<T, 2, 1, 1> yy;
  };
  MSL_VEC_COMMON(2)
  MSL_VEC_STRICT(
      2, o.v[0],
      o.v[1]) template <class S, class = enable_if_t < is_arithmetic<S>::value && is_convertible<S, T>::value >>
                                                                                      constexpr vec(S a)
      : v{T(a), T(a)} {}
  constexpr vec(T a, T b) : v{a, b} {}
  template <class U, int A, int I0, int I1> explicit constexpr vec(const msl_swz<U, A, I0, I1>& s)
      : v{T(s.d[I0]), T(s.d[I1])} {}
  template <class U, class = enable_if_t<!is_same<U, T>::value>> explicit constexpr vec(vec<U, 2> o)
      : v{T(o.v[0]), T(o.v[1])} {}
};
template <class T> struct alignas(sizeof(T) * 4) vec<T, 3> {
  union {
    struct {
      T x, y, z;
    };
    struct {
      T r, g, b;
    };
    T v[3];
    msl_swz<T, 3, 0, 1> xy;
    msl_swz<T, 3, 1, 2> yz;
    msl_swz<T, 3, 0, 2> xz;
    msl_swz<T, 3, 0, 1, 2> xyz;
    msl_swz<T, 3, 2, 1, 0> zyx;
  };
  MSL_VEC_COMMON(3)
  MSL_VEC_STRICT(
      3, o.v[0], o.v[1],
      o.v[2]) template <class S, class = enable_if_t < is_arithmetic<S>::value && is_convertible<S, T>::value >>
                                                                                      constexpr vec(S a)
      : v{T(a), T(a), T(a)} {}
  constexpr vec(T a, T b, T c) : v{a, b, c} {}
  constexpr vec(vec<T, 2> a, T b) : v{a.v[0], a.v[1], b} {}
  constexpr vec(T a, vec<T, 2> b) : v{a, b.v[0], b.v[1]} {}
  template <class U, int A, int I0, int I1, int I2> explicit constexpr vec(const msl_swz<U, A, I0, I1, I2>& s)
      : v{T(s.d[I0]), T(s.d[I1]), T(s.d[I2])} {}
  template <class U, class = enable_if_t<!is_same<U, T>::value>> explicit constexpr vec(vec<U, 3> o)
      : v{T(o.v[0]), T(o.v[1]), T(o.v[2])} {}
};
template <class T> struct alignas(sizeof(T) * 4) vec<T, 4> {
  union {
    struct {
      T x, y, z, w;
    };
    struct {
      T r, g, b, a;
    };
    T v[4];
    msl_swz<T, 4, 0, 1> xy;
    msl_swz<T, 4, 2, 3> zw;
    msl_swz<T, 4, 0, 2> xz;
    msl_swz<T, 4, 1, 3> yw;
    msl_swz<T, 4, 1, 2> yz;
    msl_swz<T, 4, 0, 3> xw;
    msl_swz<T, 4, 1, 0> yx;
    msl_swz<T, 4, 3, 2> wz;
    msl_swz<T, 4, 0, 1, 2> xyz;
    msl_swz<T, 4, 1, 2, 3> yzw;
    msl_swz<T, 4, 0, 1, 2, 3> xyzw;
    msl_swz<T, 4, 3, 2, 1, 0> wzyx;
    msl_swz<T, 4, 1, 0, 3, 2> yxwz;
    msl_swz<T, 4, 2, 3, 0, 1> zwxy;
    msl_swz<T, 4, 0, 1, 2> rgb;
  };
  MSL_VEC_COMMON(4)
  MSL_VEC_STRICT(
      4, o.v[0], o.v[1], o.v[2],
      o.v[3]) template <class S, class = enable_if_t < is_arithmetic<S>::value && is_convertible<S, T>::value >>
                                                                                      constexpr vec(S s)
      : v{T(s), T(s), T(s), T(s)} {}
  constexpr vec(T a0, T b0, T c0, T d0) : v{a0, b0, c0, d0} {}
  constexpr vec(vec<T, 2> p, vec<T, 2> q) : v{p.v[0], p.v[1], q.v[0], q.v[1]} {}
  constexpr vec(vec<T, 2> p, T c0, T d0) : v{p.v[0], p.v[1], c0, d0} {}
  constexpr vec(T a0, T b0, vec<T, 2> q) : v{a0, b0, q.v[0], q.v[1]} {}
  constexpr vec(vec<T, 3> p, T d0) : v{p.v[0], p.v[1], p.v[2], d0} {}
  constexpr vec(T a0, vec<T, 3> q) : v{a0, q.v[0], q.v[1], q.v[2]} {}
  template <class U, int A, int I0, int I1, int I2, int I3>
  explicit constexpr vec(const msl_swz<U, A, I0, I1, I2, I3>& s) : v{T(s.d[I0]), T(s.d[I1]), T(s.d[I2]), T(s.d[I3])} {}
  template <class U, class = enable_if_t<!is_same<U, T>::value>> explicit constexpr vec(vec<U, 4> o)
      : v{T(o.v[0]), T(o.v[1]), T(o.v[2]), T(o.v[3])} {}
};
#define MSL_VOP(op)                                                                              \
  template <class T, int N> constexpr vec<T, N> operator op(vec<T, N> a, vec<T, N> b) {          \
    vec<T, N> r{};                                                                               \
    for (int i = 0; i < N; i++) r.v[i] = T(a.v[i] op b.v[i]);                                    \
    return r;                                                                                    \
  }                                                                                              \
  template <class T, int N, class S, class = enable_if_t<msl_scalar_ok<S, T>::value>>            \
  constexpr vec<T, N> operator op(vec<T, N> a, S b) {                                            \
    vec<T, N> r{};                                                                               \
    for (int i = 0; i < N; i++) r.v[i] = T(a.v[i] op T(b));                                      \
    return r;                                                                                    \
  }                                                                                              \
  template <class T, int N, class S, class = enable_if_t<msl_scalar_ok<S, T>::value>>            \
  constexpr vec<T, N> operator op(S a, vec<T, N> b) {                                            \
    vec<T, N> r{};                                                                               \
    for (int i = 0; i < N; i++) r.v[i] = T(T(a) op b.v[i]);                                      \
    return r;                                                                                    \
  }                                                                                              \
  template <class T, int N, class S> constexpr vec<T, N>& operator op## = (vec<T, N> & a, S b) { \
    a = a op b;                                                                                  \
    return a;                                                                                    \
  }
MSL_VOP(+)
MSL_VOP(-)
MSL_VOP(*)
MSL_VOP(/)
MSL_VOP(%)
MSL_VOP(&)
MSL_VOP(|)
MSL_VOP(^)
MSL_VOP(<<)
MSL_VOP(>>)
#undef MSL_VOP
#define MSL_VCMP(op)                                                                       \
  template <class T, int N> constexpr vec<bool, N> operator op(vec<T, N> a, vec<T, N> b) { \
    vec<bool, N> r{};                                                                      \
    for (int i = 0; i < N; i++) r.v[i] = a.v[i] op b.v[i];                                 \
    return r;                                                                              \
  }                                                                                        \
  template <class T, int N, class S, class = enable_if_t<msl_scalar_ok<S, T>::value>>      \
  constexpr vec<bool, N> operator op(vec<T, N> a, S b) {                                   \
    return a op vec<T, N>(T(b));                                                           \
  }
MSL_VCMP(<)
MSL_VCMP(>)
MSL_VCMP(<=)
MSL_VCMP(>=)
MSL_VCMP(==)
MSL_VCMP(!=)
MSL_VCMP(&&)
MSL_VCMP(||)
#undef MSL_VCMP
MSL_SOP(+)
MSL_SOP(-)
MSL_SOP(*)
MSL_SOP(/)
MSL_SOP(<)
MSL_SOP(>)
MSL_SOP(==)
MSL_SOP(&)
MSL_SOP(|)
MSL_SOP(<<)
MSL_SOP(>>)
template <class T, int N> constexpr vec<T, N> operator-(vec<T, N> a) {
  for (int i = 0; i < N; i++) a.v[i] = -a.v[i];
  return a;
}
template <class T, int N> constexpr vec<T, N> operator~(vec<T, N> a) {
  for (int i = 0; i < N; i++) a.v[i] = ~a.v[i];
  return a;
}
template <class T, int N> constexpr vec<bool, N> operator!(vec<T, N> a) {
  vec<bool, N> r{};
  for (int i = 0; i < N; i++) r.v[i] = !a.v[i];
  return r;
}
template <int N> constexpr bool any(vec<bool, N> a) {
  bool r = false;
  for (int i = 0; i < N; i++) r = r || a.v[i];
  return r;
}
template <int N> constexpr bool all(vec<bool, N> a) {
  bool r = true;
  for (int i = 0; i < N; i++) r = r && a.v[i];
  return r;
}
#define MSL_VT(t)         \
  typedef vec<t, 2> t##2; \
  typedef vec<t, 3> t##3; \
  typedef vec<t, 4> t##4;
MSL_VT(bool)
MSL_VT(char)
MSL_VT(uchar)
MSL_VT(short)
MSL_VT(ushort)
MSL_VT(int)
MSL_VT(uint)
MSL_VT(long)
MSL_VT(ulong)
MSL_VT(half)
MSL_VT(float)
MSL_VT(bfloat)
#undef MSL_VT
} // namespace metal
template <class To, class From> constexpr To as_type(From f) {
  static_assert(sizeof(To) == sizeof(From), "as_type: sizes differ");
  if constexpr (__is_trivially_copyable(To) && __is_trivially_copyable(From)) {
    return __builtin_bit_cast(To, f);
  } else {
    To r{};
    __builtin_memcpy(&r, &f, sizeof(To));
    return r;
  }
}
