// The state of the current run, and its failures.
#pragma once
#include <csetjmp>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <pthread.h>
#include <string>
#include <vector>

#include "fiber.h"

// Shadow of one element of an output, or of one byte of threadgroup memory: the last threads that accessed it, and the
// number of their barriers.
struct Cell {
  uint32_t writer, writer_barrier, writer_simd_barrier;
  uint32_t reader, reader_barrier, reader_simd_barrier;
  uint8_t flags;
};
enum CellFlag : uint8_t {
  initialized = 1,
  written = 2,
  written_atomically = 4,
  was_read = 8,
  read_by_simdgroup = 16,   // by several threads, all of the reader's SIMD-group
  read_by_threadgroup = 32, // by several threads, all of the reader's threadgroup
  read_by_anyone = 64,
  read_plainly = 128, // not only by atomics
};

struct Region {
  uint64_t low, high;
  Cell* cells;
  Buffer* buffer; // null: threadgroup memory
};

struct ThreadgroupVariable {
  int id;
  const char* name;
  uint64_t offset, size;
};

// Buffers are 2 GiB apart in reserved address space, so that a wrong index still falls into the gap of its own buffer.
const uint64_t SLOT_BYTES = 1ull << 31, SLOT_START = 1ull << 29;
const int SLOTS = 40, THREADGROUP_SLOT = SLOTS - 1;
const uint64_t THREADGROUP_ARENA = 1 << 18, STACK_BYTES = 64 * 1024;

// Two unordered writes are benign if both store the same value, which is known only after the second store.
struct PendingWrite {
  bool waiting;
  uint64_t address;
  uint32_t bytes;
  unsigned char before[16];
  char message[800];
  void* code;
  Fiber* fiber;
};

struct Run {
  bool active;
  void (*entry)(void**, const ThreadContext*);
  void** arguments;
  Options* options;
  Report* report;
  char* arena;
  Region regions[SLOTS];
  char* stacks;
  uint64_t stack_stride, stacks_low, stacks_bytes;
  uint32_t stack_count;
  void* scheduler; // stack pointer
  Fiber* current;
  std::vector<Fiber> fibers;
  int count; // threads of the current threadgroup
  uint32_t random_state, accesses_left;
  std::vector<ThreadgroupVariable> variables;
  uint64_t threadgroup_used;
  std::vector<Cell> threadgroup_cells;
  PendingWrite pending;
  sigjmp_buf escape;
  pthread_t host;
  volatile bool in_kernel;
};
static Run run;

static uint32_t random_bits() {
  uint32_t x = run.random_state;
  x ^= x << 13;
  x ^= x >> 17;
  x ^= x << 5;
  return run.random_state = x;
}

static uint64_t code_offset(void* code) {
  Dl_info info;
  return code && dladdr(code, &info) ? (uint64_t)code - (uint64_t)info.dli_fbase : 0;
}

static void to_scheduler() { metal_switch(&run.current->stack, run.scheduler); }

[[noreturn]] static void fail(void* code, int line, const char* format, ...) {
  if (!run.report->failed) {
    run.report->failed = 1;
    run.report->line = line;
    run.report->code_offset = code_offset(code);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(run.report->message, sizeof run.report->message, format, arguments);
    va_end(arguments);
    if (run.current) memcpy(run.report->thread, &run.current->context.thread_position_in_grid, 12);
  }
  if (!run.current) siglongjmp(run.escape, 1);
  to_scheduler(); // the scheduler sees `failed` and never returns
  abort();
}
