// Data that Python, the compiled kernel and the runtime exchange. The same layouts are in ../emulator.py (Buffer,
// Options, Report) and in ../shim/threads.h (ThreadContext, Group).
#pragma once
#include <cstdint>

struct alignas(16) Uint3 {
  uint32_t x, y, z, pad;
};

// The attributes of one GPU thread.
struct ThreadContext {
  Uint3 thread_position_in_grid, thread_position_in_threadgroup, threadgroup_position_in_grid;
  Uint3 threads_per_grid, threads_per_threadgroup, threadgroups_per_grid;
  Uint3 dispatch_threads_per_threadgroup, grid_origin, grid_size;
  uint32_t thread_index_in_threadgroup, thread_index_in_simdgroup, thread_index_in_quadgroup;
  uint32_t simdgroup_index_in_threadgroup, quadgroup_index_in_threadgroup;
  uint32_t simdgroups_per_threadgroup, quadgroups_per_threadgroup;
  uint32_t dispatch_simdgroups_per_threadgroup, dispatch_quadgroups_per_threadgroup;
  uint32_t threads_per_simdgroup, thread_execution_width;
};

// One call of a SIMD-group function, after all its lanes have arrived.
struct Group {
  const void* in[32];
  void* out[32];
  int arg[32];
  uint32_t active; // mask of participating lanes
  uint32_t order;  // != 0: permutes the order of reductions
};

struct Buffer {
  const char* name;
  void* data;
  uint64_t bytes;
  uint32_t element_bytes;
  uint32_t is_output;
  uint32_t is_initialized;
  uint32_t unused;
  // results
  uint64_t unwritten_first, unwritten_count; // in elements
  uint64_t read_bytes, written_bytes;        // every access counted
};

struct Options {
  uint32_t grid[3], threadgroup[3];
  uint64_t seed;              // 0: threads and threadgroups in order
  uint32_t preempt;           // mean number of accesses between two switches of threads, 0: only at barriers
  uint32_t equal_writes_race; // two threads that write the same value without a barrier are an error too
  uint32_t timeout_ms;
  uint32_t threadgroup_bytes; // limit
};

struct Report {
  int32_t failed;
  int32_t line;       // of the kernel text, 0: unknown
  uint32_t thread[3]; // position in the grid
  uint32_t threadgroup_bytes;
  uint64_t code_offset; // of the failing access in the kernel's library, 0: unknown
  char message[2000];
};
