// Atomics, threadgroup variables, and the attributes of a thread.
#pragma once
#include "threads.h"

// ---- atomics
namespace metal {
template <class T> struct atomic {
  static_assert(is_same<T, int>::value || is_same<T, uint>::value || is_same<T, bool>::value ||
                    is_same<T, float>::value || is_same<T, ulong>::value,
                "MSL has atomic<int|uint|bool|float|ulong> only (no half, bfloat, short, char atomics)");
  T msl_v;
};
typedef atomic<int> atomic_int;
typedef atomic<uint> atomic_uint;
typedef atomic<bool> atomic_bool;
typedef atomic<float> atomic_float;
typedef atomic<ulong> atomic_ulong;
template <class T> struct msl_id {
  typedef T type;
};
#if MSL_STRICT
#define MSL_AT(AS)                                                                                                   \
  template <class T> T atomic_load_explicit(const volatile AS atomic<T>* p, memory_order);                           \
  template <class T> void atomic_store_explicit(volatile AS atomic<T>* p, typename msl_id<T>::type v, memory_order); \
  template <class T> T atomic_exchange_explicit(volatile AS atomic<T>* p, typename msl_id<T>::type v, memory_order); \
  template <class T> bool atomic_compare_exchange_weak_explicit(                                                     \
      volatile AS atomic<T>* p, thread T* e, typename msl_id<T>::type v, memory_order, memory_order);
MSL_AT(device)
MSL_AT(threadgroup)
#define MSL_RMW(n, FP)                                                                        \
  template <class T, class = enable_if_t<is_same<T, int>::value || is_same<T, uint>::value || \
                                         (FP && is_same<T, float>::value)>>                   \
  T n(volatile device atomic<T>* p, typename msl_id<T>::type v, memory_order);                \
  template <class T, class = enable_if_t<is_same<T, int>::value || is_same<T, uint>::value>>  \
  T n(volatile threadgroup atomic<T>* p, typename msl_id<T>::type v, memory_order);
MSL_RMW(atomic_fetch_add_explicit, true)
MSL_RMW(atomic_fetch_sub_explicit, true)
MSL_RMW(atomic_fetch_min_explicit, false)
MSL_RMW(atomic_fetch_max_explicit, false)
MSL_RMW(atomic_fetch_and_explicit, false)
MSL_RMW(atomic_fetch_or_explicit, false)
MSL_RMW(atomic_fetch_xor_explicit, false)
#else
template <class T> MSL_NOSAN T atomic_load_explicit(const volatile atomic<T>* p, memory_order) {
  metal_rt_atomic(p, sizeof(T), 0);
  return p->msl_v;
}
template <class T>
MSL_NOSAN void atomic_store_explicit(volatile atomic<T>* p, typename msl_id<T>::type v, memory_order) {
  metal_rt_atomic(p, sizeof(T), 1);
  p->msl_v = v;
}
template <class T>
MSL_NOSAN T atomic_exchange_explicit(volatile atomic<T>* p, typename msl_id<T>::type v, memory_order) {
  metal_rt_atomic(p, sizeof(T), 2);
  T o = p->msl_v;
  p->msl_v = v;
  return o;
}
template <class T> MSL_NOSAN bool atomic_compare_exchange_weak_explicit(volatile atomic<T>* p, T* e,
                                                                        typename msl_id<T>::type v, memory_order,
                                                                        memory_order) {
  metal_rt_atomic(p, sizeof(T), 2);
  T o = p->msl_v;
  if (__builtin_memcmp(&o, e, sizeof(T)) == 0) {
    p->msl_v = v;
    return true;
  }
  *e = o;
  return false;
}
#define MSL_RMW(n, FP, expr)                                                                             \
  template <class T> MSL_NOSAN T n(volatile atomic<T>* p, typename msl_id<T>::type v, memory_order) {    \
    static_assert(is_same<T, int>::value || is_same<T, uint>::value || (FP && is_same<T, float>::value), \
                  #n ": not for this type in MSL");                                                      \
    metal_rt_atomic(p, sizeof(T), 2);                                                                    \
    T o = p->msl_v;                                                                                      \
    p->msl_v = T(expr);                                                                                  \
    return o;                                                                                            \
  }
MSL_RMW(atomic_fetch_add_explicit, true, o + v)
MSL_RMW(atomic_fetch_sub_explicit, true, o - v)
MSL_RMW(atomic_fetch_min_explicit, false, v < o ? v : o)
MSL_RMW(atomic_fetch_max_explicit, false, o < v ? v : o)
MSL_RMW(atomic_fetch_and_explicit, false, o& v)
MSL_RMW(atomic_fetch_or_explicit, false, o | v)
MSL_RMW(atomic_fetch_xor_explicit, false, o ^ v)
#endif
} // namespace metal

// ---- threadgroup variables
// `threadgroup float s[32];` in a kernel body is rewritten to MSL_THREADGROUP(id, "s", s, float[32]);
#if MSL_STRICT
#define MSL_THREADGROUP(id, nm, var, ...)                      \
  threadgroup typename metal::msl_id<__VA_ARGS__>::type& var = \
      *(threadgroup typename metal::msl_id<__VA_ARGS__>::type*)metal_strict_threadgroup()
threadgroup void* metal_strict_threadgroup();
#else
#define MSL_THREADGROUP(id, nm, var, ...)                                                                             \
  typename metal::msl_id<__VA_ARGS__>::type& var = *(typename metal::msl_id<__VA_ARGS__>::type*)metal_rt_threadgroup( \
      id, sizeof(typename metal::msl_id<__VA_ARGS__>::type), alignof(typename metal::msl_id<__VA_ARGS__>::type), nm,  \
      __builtin_LINE())
#endif

#if !MSL_STRICT
struct msl_context { // the attributes of one thread
  metal::uint3 thread_position_in_grid, thread_position_in_threadgroup, threadgroup_position_in_grid, threads_per_grid,
      threads_per_threadgroup, threadgroups_per_grid, dispatch_threads_per_threadgroup, grid_origin, grid_size;
  uint thread_index_in_threadgroup, thread_index_in_simdgroup, thread_index_in_quadgroup,
      simdgroup_index_in_threadgroup, quadgroup_index_in_threadgroup, simdgroups_per_threadgroup,
      quadgroups_per_threadgroup, dispatch_simdgroups_per_threadgroup, dispatch_quadgroups_per_threadgroup,
      threads_per_simdgroup, thread_execution_width;
};
#endif
