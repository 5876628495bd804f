// Barriers and SIMD-group functions.
#pragma once
#include "math.h"
namespace metal {
// ---- barriers and fences
enum class mem_flags : uint {
  mem_none = 0,
  mem_device = 1,
  mem_threadgroup = 2,
  mem_texture = 4,
  mem_threadgroup_imageblock = 8,
  mem_object_data = 16
};
constexpr mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(uint(a) | uint(b)); }
enum memory_order { memory_order_relaxed = 0 };
} // namespace metal
struct msl_group { // one call of a SIMD-group function
  const void* in[32];
  void* out[32];
  int arg[32];
  uint active; // mask of participating lanes
  uint order;   // != 0: permute the order of reductions
};
#if !MSL_STRICT
extern "C" {
void metal_rt_barrier(int simd, uint flags, int line);
void metal_rt_simd(const char* op, void (*combine)(msl_group*), const void* in, void* out, int arg, int uniform_arg,
                   int line);
void* metal_rt_threadgroup(int id, ulong size, ulong align, const char* name, int line);
void metal_rt_atomic(const volatile void* p, uint size, int write);
uint metal_rt_lane();
void metal_rt_inactive(const char* op, int lane, int src);
}
#endif
namespace metal {
#if MSL_STRICT
void threadgroup_barrier(mem_flags f);
void simdgroup_barrier(mem_flags f);
#else
inline void threadgroup_barrier(mem_flags f, int line = __builtin_LINE()) { metal_rt_barrier(0, uint(f), line); }
inline void simdgroup_barrier(mem_flags f, int line = __builtin_LINE()) { metal_rt_barrier(1, uint(f), line); }
#endif
// ---- SIMD-group functions
template <class T> struct msl_simd_ok {
  typedef typename msl_vec_info<T>::scalar S;
  static constexpr constant bool value =
      is_arithmetic<S>::value && sizeof(S) <= 4 && !is_same<S, bool>::value && !is_same<S, bfloat>::value;
};
// 64-bit and bool operands are refused. Otherwise MLX's simd_sum(bfloat16_t) would accept them
// through the implicit integer -> bfloat conversion and lose the value.
template <class T> struct msl_simd_bad {
  typedef typename msl_vec_info<T>::scalar S;
  static constexpr constant bool value = is_integral<S>::value && (sizeof(S) > 4 || is_same<S, bool>::value);
};
#define MSL_SGX(n) template <class T, class = enable_if_t<msl_simd_bad<T>::value>, class = void> T n(T v) = delete;
MSL_SGX(simd_sum)
MSL_SGX(simd_product)
MSL_SGX(simd_min)
MSL_SGX(simd_max)
MSL_SGX(simd_and)
MSL_SGX(simd_or)
MSL_SGX(simd_xor)
MSL_SGX(simd_broadcast_first)
MSL_SGX(simd_prefix_inclusive_sum)
MSL_SGX(simd_prefix_exclusive_sum)
#undef MSL_SGX
#if MSL_STRICT
#define MSL_SG1(n) template <class T, class = enable_if_t<msl_simd_ok<T>::value>> T n(T v);
#define MSL_SG2(n) template <class T, class = enable_if_t<msl_simd_ok<T>::value>> T n(T v, ushort a);
MSL_SG1(simd_sum)
MSL_SG1(simd_product)
MSL_SG1(simd_min)
MSL_SG1(simd_max)
MSL_SG1(simd_and)
MSL_SG1(simd_or)
MSL_SG1(simd_xor)
MSL_SG1(simd_broadcast_first)
MSL_SG1(simd_prefix_inclusive_sum)
MSL_SG1(simd_prefix_exclusive_sum)
MSL_SG1(simd_prefix_inclusive_product)
MSL_SG1(simd_prefix_exclusive_product)
MSL_SG2(simd_shuffle)
MSL_SG2(simd_shuffle_xor)
MSL_SG2(simd_shuffle_up)
MSL_SG2(simd_shuffle_down)
MSL_SG2(simd_shuffle_rotate_up)
MSL_SG2(simd_shuffle_rotate_down)
MSL_SG2(simd_broadcast)
template <class T, class = enable_if_t<msl_simd_ok<T>::value>>
T simd_shuffle_and_fill_up(T v, T f, ushort d, ushort m = 32);
template <class T, class = enable_if_t<msl_simd_ok<T>::value>>
T simd_shuffle_and_fill_down(T v, T f, ushort d, ushort m = 32);
struct simd_vote {
  typedef ulong vote_t;
  vote_t b;
  explicit constexpr operator vote_t() const { return b; }
  bool all() const { return true; }
  bool any() const { return true; }
};
simd_vote simd_ballot(bool p);
simd_vote simd_active_threads_mask();
bool simd_all(bool p);
bool simd_any(bool p);
bool simd_is_first();
#else
enum msl_op {
  MSL_SUM,
  MSL_PROD,
  MSL_MIN,
  MSL_MAX,
  MSL_AND,
  MSL_OR,
  MSL_XOR,
  MSL_FIRST,
  MSL_PIS,
  MSL_PES,
  MSL_PIP,
  MSL_PEP,
  MSL_SHUF,
  MSL_SHUFX,
  MSL_UP,
  MSL_DOWN,
  MSL_RUP,
  MSL_RDOWN,
  MSL_BCAST
};
template <int OP, class T> MSL_NOSAN inline T msl_red(T a, T b) {
  if constexpr (OP == MSL_SUM || OP == MSL_PIS || OP == MSL_PES)
    return T(a + b);
  else if constexpr (OP == MSL_PROD || OP == MSL_PIP || OP == MSL_PEP)
    return T(a * b);
  else if constexpr (OP == MSL_MIN)
    return min(a, b);
  else if constexpr (OP == MSL_MAX)
    return max(a, b);
  else if constexpr (OP == MSL_AND)
    return T(a & b);
  else if constexpr (OP == MSL_OR)
    return T(a | b);
  else
    return T(a ^ b);
}
template <int OP, class T> MSL_NOSAN void msl_combine(msl_group* g) {
  auto val = [g](int l) -> T { return *(const T*)g->in[l]; };
  auto on = [g](int l) { return l >= 0 && l < 32 && ((g->active >> l) & 1); };
  if constexpr (OP <= MSL_XOR) { // butterfly over the active lanes, optionally permuted
    T x[32];
    int n = 0;
    for (int i = 0; i < 32; i++) {
      int l = g->order ? int((i * (g->order | 1u) + (g->order >> 7)) & 31u) : i;
      if (on(l)) x[n++] = val(l);
    }
    while (n > 1) {
      int m = 0, h = (n + 1) / 2;
      for (int i = 0; i < h; i++) x[m++] = i + h < n ? msl_red<OP, T>(x[i], x[i + h]) : x[i];
      n = m;
    }
    for (int l = 0; l < 32; l++)
      if (on(l)) *(T*)g->out[l] = x[0];
  } else if constexpr (OP == MSL_FIRST) {
    int f = 0;
    while (!on(f)) f++;
    for (int l = 0; l < 32; l++)
      if (on(l)) *(T*)g->out[l] = val(f);
  } else if constexpr (OP >= MSL_PIS && OP <= MSL_PEP) {
    T acc = (OP == MSL_PIS || OP == MSL_PES) ? T(0) : T(1);
    for (int l = 0; l < 32; l++)
      if (on(l)) {
        T nx = msl_red<OP, T>(acc, val(l));
        *(T*)g->out[l] = (OP == MSL_PIS || OP == MSL_PIP) ? nx : acc;
        acc = nx;
      }
  } else {
    constexpr const char* nm = OP == MSL_SHUF    ? "simd_shuffle"
                               : OP == MSL_SHUFX ? "simd_shuffle_xor"
                               : OP == MSL_UP    ? "simd_shuffle_up"
                               : OP == MSL_DOWN  ? "simd_shuffle_down"
                               : OP == MSL_BCAST ? "simd_broadcast"
                                                 : "simd_shuffle_rotate";
    for (int l = 0; l < 32; l++)
      if (on(l)) {
        int a = g->arg[l], s = l;
        if constexpr (OP == MSL_SHUF || OP == MSL_BCAST)
          s = a;
        else if constexpr (OP == MSL_SHUFX)
          s = l ^ a;
        else if constexpr (OP == MSL_UP)
          s = l - a < 0 ? l : l - a;
        else if constexpr (OP == MSL_DOWN)
          s = l + a > 31 ? l : l + a;
        else if constexpr (OP == MSL_RUP)
          s = (l - a) & 31;
        else
          s = (l + a) & 31;
        if (!on(s)) metal_rt_inactive(nm, l, s); // does not return
        *(T*)g->out[l] = val(s);
      }
  }
}
template <int OP, class T> MSL_NOSAN inline T msl_coll(const char* nm, T v, int arg, int uni, int line) {
  T r;
  metal_rt_simd(nm, &msl_combine<OP, T>, &v, &r, arg, uni, line);
  return r;
}
#define MSL_SG1(n, OP)                                           \
  template <class T, class = enable_if_t<msl_simd_ok<T>::value>> \
  MSL_NOSAN inline T n(T v, int line = __builtin_LINE()) {       \
    return msl_coll<OP>(#n, v, 0, 0, line);                      \
  }
#define MSL_SG2(n, OP, U)                                            \
  template <class T, class = enable_if_t<msl_simd_ok<T>::value>>     \
  MSL_NOSAN inline T n(T v, ushort a, int line = __builtin_LINE()) { \
    return msl_coll<OP>(#n, v, a, U, line);                          \
  }
MSL_SG1(simd_sum, MSL_SUM)
MSL_SG1(simd_product, MSL_PROD)
MSL_SG1(simd_min, MSL_MIN)
MSL_SG1(simd_max, MSL_MAX)
MSL_SG1(simd_and, MSL_AND)
MSL_SG1(simd_or, MSL_OR)
MSL_SG1(simd_xor, MSL_XOR)
MSL_SG1(simd_broadcast_first, MSL_FIRST)
MSL_SG1(simd_prefix_inclusive_sum, MSL_PIS)
MSL_SG1(simd_prefix_exclusive_sum, MSL_PES)
MSL_SG1(simd_prefix_inclusive_product, MSL_PIP)
MSL_SG1(simd_prefix_exclusive_product, MSL_PEP)
MSL_SG2(simd_shuffle, MSL_SHUF, 0)
MSL_SG2(simd_shuffle_xor, MSL_SHUFX, 1)
MSL_SG2(simd_shuffle_up, MSL_UP, 1)
MSL_SG2(simd_shuffle_down, MSL_DOWN, 1)
MSL_SG2(simd_shuffle_rotate_up, MSL_RUP, 1)
MSL_SG2(simd_shuffle_rotate_down, MSL_RDOWN, 1)
MSL_SG2(simd_broadcast, MSL_BCAST, 1)
template <class T> struct msl_pair {
  T a, b;
};
template <class T, bool UP> MSL_NOSAN void msl_fill(msl_group* g) {
  for (int l = 0; l < 32; l++)
    if ((g->active >> l) & 1) {
      const msl_pair<T>* me = (const msl_pair<T>*)g->in[l];
      int d = g->arg[l] & 0xffff, m = g->arg[l] >> 16, base = l / m * m, s = UP ? l - d : l + d;
      if (UP ? s >= base : s < base + m) {
        if (!((g->active >> s) & 1)) metal_rt_inactive("simd_shuffle_and_fill", l, s);
        *(T*)g->out[l] = ((const msl_pair<T>*)g->in[s])->a;
      } else { // filled from the neighbor's filling_data: lane index wraps inside the modulo
        int w = UP ? s + m : s - m;
        *(T*)g->out[l] = ((const msl_pair<T>*)g->in[((g->active >> w) & 1) ? w : l])->b;
      }
    }
}
template <class T, class = enable_if_t<msl_simd_ok<T>::value>>
MSL_NOSAN inline T simd_shuffle_and_fill_up(T v, T f, ushort d, ushort m = 32, int line = __builtin_LINE()) {
  msl_pair<T> p{v, f};
  T r;
  metal_rt_simd("simd_shuffle_and_fill_up", &msl_fill<T, true>, &p, &r, d | (m << 16), 1, line);
  return r;
}
template <class T, class = enable_if_t<msl_simd_ok<T>::value>>
MSL_NOSAN inline T simd_shuffle_and_fill_down(T v, T f, ushort d, ushort m = 32, int line = __builtin_LINE()) {
  msl_pair<T> p{v, f};
  T r;
  metal_rt_simd("simd_shuffle_and_fill_down", &msl_fill<T, false>, &p, &r, d | (m << 16), 1, line);
  return r;
}

struct simd_vote {
  typedef ulong vote_t;
  vote_t b, act;
  explicit constexpr operator vote_t() const { return b; }
  constexpr bool all() const { return (b & act) == act; }
  constexpr bool any() const { return (b & act) != 0; }
};
MSL_NOSAN inline void msl_ballot(msl_group* g) {
  uint m = 0;
  for (int l = 0; l < 32; l++)
    if (((g->active >> l) & 1) && *(const uint*)g->in[l]) m |= 1u << l;
  for (int l = 0; l < 32; l++)
    if ((g->active >> l) & 1) {
      ((uint*)g->out[l])[0] = m;
      ((uint*)g->out[l])[1] = g->active;
    }
}
MSL_NOSAN inline simd_vote msl_vote(const char* nm, bool p, int line) {
  uint v = p, r[2];
  metal_rt_simd(nm, &msl_ballot, &v, r, 0, 0, line);
  return simd_vote{r[0], r[1]};
}
MSL_NOSAN inline simd_vote simd_ballot(bool p, int line = __builtin_LINE()) { return msl_vote("simd_ballot", p, line); }
MSL_NOSAN inline simd_vote simd_active_threads_mask(int line = __builtin_LINE()) {
  return msl_vote("simd_active_threads_mask", true, line);
}
MSL_NOSAN inline bool simd_all(bool p, int line = __builtin_LINE()) { return msl_vote("simd_all", p, line).all(); }
MSL_NOSAN inline bool simd_any(bool p, int line = __builtin_LINE()) { return msl_vote("simd_any", p, line).any(); }
MSL_NOSAN inline bool simd_is_first(int line = __builtin_LINE()) {
  simd_vote v = msl_vote("simd_is_first", true, line);
  uint f = 0;
  while (!((v.act >> f) & 1)) f++;
  return metal_rt_lane() == f;
}
#endif
} // namespace metal
inline ushort __metal_get_simdgroup_size(ushort) { return 32; }
#if MSL_STRICT
#define MSL_L
#define MSL_LA
#else
#define MSL_L , int line = __builtin_LINE()
#define MSL_LA , line
#endif
#define MSL_M1(n) \
  inline float __metal_##n(float x MSL_L) { return metal::n(x MSL_LA); }
MSL_M1(simd_sum)
MSL_M1(simd_product)
MSL_M1(simd_min)
MSL_M1(simd_max)
MSL_M1(simd_prefix_inclusive_sum)
MSL_M1(simd_prefix_exclusive_sum)
MSL_M1(simd_prefix_inclusive_product)
MSL_M1(simd_prefix_exclusive_product)
inline float __metal_simd_xor(float x) { return x; } // (never meaningful for floats)
#define MSL_M2(n) \
  inline ushort __metal_##n(ushort x, ushort a MSL_L) { return metal::n(x, a MSL_LA); }
MSL_M2(simd_shuffle)
MSL_M2(simd_shuffle_xor)
MSL_M2(simd_shuffle_up)
MSL_M2(simd_shuffle_down)
MSL_M2(simd_shuffle_rotate_up)
MSL_M2(simd_shuffle_rotate_down)
MSL_M2(simd_broadcast)
inline ushort __metal_simd_shuffle_and_fill_up(ushort x, ushort f, ushort d, ushort m MSL_L) {
  return metal::simd_shuffle_and_fill_up(x, f, d, m MSL_LA);
}
inline ushort __metal_simd_shuffle_and_fill_down(ushort x, ushort f, ushort d, ushort m MSL_L) {
  return metal::simd_shuffle_and_fill_down(x, f, d, m MSL_LA);
}
