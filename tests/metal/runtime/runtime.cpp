// The runtime that compiled kernels link to. The compiler instruments every load and store for thread sanitizer and
// undefined-behavior sanitizer. The callbacks below replace those libraries.
#include <csignal>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include "schedule.h"

#define CODE __builtin_return_address(0)

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
#define ACCESSES(n)                                                                     \
  void __tsan_read##n(void* p) { access(p, n, Access::read, false, CODE); }             \
  void __tsan_write##n(void* p) { access(p, n, Access::write, false, CODE); }           \
  void __tsan_unaligned_read##n(void* p) { access(p, n, Access::read, false, CODE); }   \
  void __tsan_unaligned_write##n(void* p) { access(p, n, Access::write, false, CODE); } \
  void __tsan_volatile_read##n(void* p) { access(p, n, Access::read, false, CODE); }    \
  void __tsan_volatile_write##n(void* p) { access(p, n, Access::write, false, CODE); }  \
  void __tsan_read_write##n(void* p) {                                                  \
    access(p, n, Access::read, false, CODE);                                            \
    access(p, n, Access::write, false, CODE);                                           \
  }                                                                                     \
  void __tsan_unaligned_read_write##n(void* p) {                                        \
    access(p, n, Access::read, false, CODE);                                            \
    access(p, n, Access::write, false, CODE);                                           \
  }
ACCESSES(1) ACCESSES(2) ACCESSES(4) ACCESSES(8) ACCESSES(16) void __tsan_read_range(void* p, unsigned long n) {
  access(p, n, Access::read, false, CODE);
}
void __tsan_write_range(void* p, unsigned long n) { access(p, n, Access::write, false, CODE); }
void* __tsan_memcpy(void* to, const void* from, size_t n) {
  access((void*)from, n, Access::read, false, CODE);
  access(to, n, Access::write, false, CODE);
  return memcpy(to, from, n);
}
void* __tsan_memmove(void* to, const void* from, size_t n) {
  access((void*)from, n, Access::read, false, CODE);
  access(to, n, Access::write, false, CODE);
  return memmove(to, from, n);
}
void* __tsan_memset(void* to, int value, size_t n) {
  access(to, n, Access::write, false, CODE);
  return memset(to, value, n);
}

struct SourceLocation {
  const char* file;
  uint32_t line, column;
};
#define UNDEFINED(name, text)                                                                    \
  void __ubsan_handle_##name(SourceLocation* at) {                                               \
    if (!run.in_kernel || !run.current) return;                                                  \
    settle_pending();                                                                            \
    fail(CODE, 0, "undefined behavior: " text " (%s:%u)", at->file ? at->file : "?", at->line); \
  }                                                                                              \
  void __ubsan_handle_##name##_abort(SourceLocation* at) { __ubsan_handle_##name(at); }
UNDEFINED(out_of_bounds, "index out of bounds of a fixed-size array")
UNDEFINED(shift_out_of_bounds, "shift out of range")
UNDEFINED(divrem_overflow, "integer division by zero or overflow")
UNDEFINED(float_cast_overflow, "float to integer conversion out of range")
UNDEFINED(type_mismatch_v1, "misaligned or null pointer access")

// ---- functions that the shim calls
void metal_rt_barrier(int simd, uint32_t flags, int line) {
  run.current->flags = flags;
  if (simd)
    wait_for(Status::at_simdgroup_barrier, "simdgroup_barrier", line);
  else
    wait_for(Status::at_threadgroup_barrier, "threadgroup_barrier", line);
}
void metal_rt_simd(const char* operation, void (*combine)(Group*), const void* in, void* out, int arg, int uniform,
                   int line) {
  Fiber* fiber = run.current;
  fiber->combine = combine;
  fiber->in = in;
  fiber->out = out;
  fiber->arg = arg;
  fiber->uniform = uniform;
  wait_for(Status::at_simd_function, operation, line);
}
uint32_t metal_rt_lane() { return run.current->context.thread_index_in_simdgroup; }
void metal_rt_inactive(const char* operation, int lane, int source) {
  fail(nullptr, combine_line, "%s: lane %d reads lane %d, which is not active (undefined in MSL)", operation, lane,
       source);
}
void metal_rt_atomic(const volatile void* p, uint32_t bytes, int kind) {
  access((void*)p, bytes, (Access)kind, true, CODE);
}
void* metal_rt_threadgroup(int id, unsigned long size, unsigned long align, const char* name, int line) {
  const uint64_t red_zone = 64;
  uint64_t low = run.regions[THREADGROUP_SLOT].low, total = size;
  for (auto& variable : run.variables) {
    if (variable.id == id) return (void*)(low + variable.offset);
    total += variable.size;
  }
  if (total > run.options->threadgroup_bytes)
    fail(CODE, line, "threadgroup memory: %llu bytes declared, limit %u", (unsigned long long)total,
         run.options->threadgroup_bytes);
  if (align < 16) align = 16;
  uint64_t offset = (run.threadgroup_used + align - 1) / align * align;
  run.variables.push_back({id, name, offset, size});
  run.threadgroup_used = offset + size + red_zone;
  if (total > run.report->threadgroup_bytes) run.report->threadgroup_bytes = (uint32_t)total;
  return (void*)(low + offset);
}
} // extern "C"

static void fiber_start() {
  Fiber* fiber = run.current;
  run.entry(run.arguments, &fiber->context);
  settle_pending();
  fiber->status = Status::done;
  to_scheduler();
}

static void on_signal(int signal_number, siginfo_t* info, void*) {
  if (!pthread_equal(pthread_self(), run.host)) {
    if (signal_number == SIGVTALRM) {
      pthread_kill(run.host, signal_number);
    } else {
      signal(signal_number, SIG_DFL);
      raise(signal_number);
    }
    return;
  }
  if (!run.active) return;
  if (!run.report->failed) {
    Report* report = run.report;
    report->failed = 1;
    if (run.current) memcpy(report->thread, &run.current->context.thread_position_in_grid, 12);
    uint64_t address = (uint64_t)info->si_addr;
    if (signal_number == SIGVTALRM)
      snprintf(report->message, sizeof report->message, "timeout: no end within %u ms of processor time",
               run.options->timeout_ms);
    else if (signal_number == SIGFPE)
      strcpy(report->message, "integer division by zero");
    else if (address - run.stacks_low < run.stacks_bytes)
      strcpy(report->message, "stack overflow of a thread (private arrays too large, or recursion)");
    else
      snprintf(report->message, sizeof report->message, "invalid memory access at %p", info->si_addr);
  }
  siglongjmp(run.escape, 2);
}

// ---- one launch
static uint64_t page_bytes() { return (uint64_t)sysconf(_SC_PAGESIZE); }
static uint64_t whole_pages(uint64_t bytes) { return (bytes + page_bytes() - 1) / page_bytes() * page_bytes(); }

// A buffer ends at the end of its page, so that the hardware traps accesses that are not instrumented.
static void* map_buffer(int slot, Buffer& buffer, std::vector<Cell>& cells) {
  uint64_t low = (uint64_t)run.arena + slot * SLOT_BYTES + SLOT_START, length = whole_pages(buffer.bytes);
  if (length) mprotect((void*)low, length, PROT_READ | PROT_WRITE);
  uint64_t start = (low + length - buffer.bytes) & ~15ull;
  if (buffer.is_initialized)
    memcpy((void*)start, buffer.data, buffer.bytes);
  else
    memset((void*)start, 0xff, buffer.bytes);
  if (!buffer.is_output && length) mprotect((void*)low, length, PROT_READ);
  if (buffer.is_output) {
    Cell blank{};
    blank.flags = buffer.is_initialized ? initialized : 0;
    cells.assign(buffer.bytes / buffer.element_bytes + 1, blank);
  }
  run.regions[slot] = {start, start + buffer.bytes, cells.data(), &buffer};
  return (void*)start;
}

static void unmap_buffer(int slot, Buffer& buffer, const std::vector<Cell>& cells) {
  if (buffer.is_output) {
    memcpy(buffer.data, (void*)run.regions[slot].low, buffer.bytes);
    for (uint64_t i = 0; i < buffer.bytes / buffer.element_bytes; i++)
      if (!(cells[i].flags & initialized) && !buffer.unwritten_count++) buffer.unwritten_first = i;
  }
  uint64_t low = (uint64_t)run.arena + slot * SLOT_BYTES + SLOT_START, length = whole_pages(buffer.bytes);
  if (length) mmap((void*)low, length, PROT_NONE, MAP_PRIVATE | MAP_ANON | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static bool reserve(uint32_t threads) {
  const int flags = MAP_PRIVATE | MAP_ANON | MAP_NORESERVE;
  if (!run.arena) {
    void* arena = mmap(nullptr, SLOT_BYTES * SLOTS, PROT_NONE, flags, -1, 0);
    if (arena == MAP_FAILED) return false;
    run.arena = (char*)arena;
    void* local = run.arena + THREADGROUP_SLOT * SLOT_BYTES + SLOT_START;
    mprotect(local, THREADGROUP_ARENA, PROT_READ | PROT_WRITE);
    run.threadgroup_cells.resize(THREADGROUP_ARENA);
  }
  if (run.stack_count >= threads) return true;
  if (run.stacks) munmap(run.stacks, run.stacks_bytes);
  run.stack_count = 0;
  run.stack_stride = STACK_BYTES + page_bytes(); // a guard page below each stack
  run.stacks_bytes = run.stack_stride * threads;
  void* stacks = mmap(nullptr, run.stacks_bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  run.stacks = stacks == MAP_FAILED ? nullptr : (char*)stacks;
  if (!run.stacks) return false;
  for (uint32_t i = 0; i < threads; i++) mprotect(run.stacks + i * run.stack_stride, page_bytes(), PROT_NONE);
  run.stacks_low = (uint64_t)run.stacks;
  run.stack_count = threads;
  return true;
}

static void set_up_threads(uint32_t id, const uint32_t* grid, const uint32_t* group, const uint32_t* groups) {
  uint32_t full = group[0] * group[1] * group[2];
  Uint3 place = {id % groups[0], id / groups[0] % groups[1], id / groups[0] / groups[1], 0};
  uint32_t origin[3] = {place.x * group[0], place.y * group[1], place.z * group[2]}, size[3];
  for (int i = 0; i < 3; i++) size[i] = grid[i] - origin[i] < group[i] ? grid[i] - origin[i] : group[i];
  run.count = size[0] * size[1] * size[2]; // dispatchThreads makes the groups at the edge smaller
  for (uint32_t i = 0; i < (uint32_t)run.count; i++) {
    Fiber& fiber = run.fibers[i];
    fiber = Fiber{};
    fiber.uid = id << 10 | i;
    fiber.stack = new_stack(run.stacks + (i + 1) * run.stack_stride, fiber_start);
    ThreadContext& context = fiber.context;
    Uint3 local = {i % size[0], i / size[0] % size[1], i / size[0] / size[1], 0};
    context.thread_position_in_threadgroup = local;
    context.threadgroup_position_in_grid = place;
    context.thread_position_in_grid = {origin[0] + local.x, origin[1] + local.y, origin[2] + local.z, 0};
    context.threads_per_grid = context.grid_size = {grid[0], grid[1], grid[2], 0};
    context.threads_per_threadgroup = {size[0], size[1], size[2], 0};
    context.threadgroups_per_grid = {groups[0], groups[1], groups[2], 0};
    context.dispatch_threads_per_threadgroup = {group[0], group[1], group[2], 0};
    context.thread_index_in_threadgroup = i;
    context.thread_index_in_simdgroup = i % 32;
    context.simdgroup_index_in_threadgroup = i / 32;
    context.thread_index_in_quadgroup = i % 4;
    context.quadgroup_index_in_threadgroup = i / 4;
    context.simdgroups_per_threadgroup = (run.count + 31) / 32;
    context.quadgroups_per_threadgroup = (run.count + 3) / 4;
    context.dispatch_simdgroups_per_threadgroup = (full + 31) / 32;
    context.dispatch_quadgroups_per_threadgroup = (full + 3) / 4;
    context.threads_per_simdgroup = context.thread_execution_width = 32;
  }
}

static void run_grid(const uint32_t* grid, const uint32_t* group) {
  uint32_t groups[3];
  for (int i = 0; i < 3; i++) groups[i] = (grid[i] + group[i] - 1) / group[i];
  std::vector<uint32_t> order(groups[0] * groups[1] * groups[2]);
  for (size_t i = 0; i < order.size(); i++) order[i] = i;
  if (run.options->seed)
    for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[random_bits() % i]);
  for (uint32_t id : order) {
    set_up_threads(id, grid, group, groups);
    memset((void*)run.regions[THREADGROUP_SLOT].low, 0xff, run.threadgroup_used);
    std::fill_n(run.threadgroup_cells.begin(), run.threadgroup_used, Cell{});
    run.variables.clear();
    run.threadgroup_used = 0;
    run_threadgroup();
  }
}

// Run every thread of the grid and write the result to `report`. One launch at a time, from any thread.
extern "C" void metal_launch(void (*entry)(void**, const ThreadContext*), Buffer* buffers, int count, Options* options,
                             Report* report) {
  static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGVTALRM};
  uint32_t group[3], threads = 1;
  for (int i = 0; i < 3; i++) {
    group[i] = options->threadgroup[i] < options->grid[i] ? options->threadgroup[i] : options->grid[i];
    threads *= group[i];
  }
  const char* refusal = nullptr;
  if (threads == 0) refusal = "empty grid or threadgroup";
  if (threads > 1024) refusal = "threadgroup size is greater than the maximum of 1024 threads";
  if (count > THREADGROUP_SLOT) refusal = "too many buffers";
  if (!refusal && !reserve(threads)) refusal = "cannot reserve address space";
  if (refusal) {
    report->failed = 1;
    strcpy(report->message, refusal);
    return;
  }
  std::vector<void*> arguments(count);
  std::vector<std::vector<Cell>> cells(count);
  std::fill_n(run.regions, SLOTS, Region{});
  for (int i = 0; i < count; i++) arguments[i] = map_buffer(i, buffers[i], cells[i]);
  uint64_t local = (uint64_t)run.arena + THREADGROUP_SLOT * SLOT_BYTES + SLOT_START;
  run.regions[THREADGROUP_SLOT] = {local, local + THREADGROUP_ARENA, run.threadgroup_cells.data(), nullptr};
  run.entry = entry;
  run.arguments = arguments.data();
  run.options = options;
  run.report = report;
  run.current = nullptr;
  run.pending.waiting = run.in_kernel = false;
  run.host = pthread_self();
  run.random_state = (uint32_t)(options->seed * 2654435761u) | 1;
  run.accesses_left = options->preempt ? 1 + random_bits() % (2 * options->preempt) : 0;
  run.fibers.resize(threads);

  static char* signal_stack = (char*)malloc(65536);
  stack_t stack{}, old_stack{};
  stack.ss_sp = signal_stack;
  stack.ss_size = 65536;
  sigaltstack(&stack, &old_stack);
  struct sigaction action{}, old_actions[4];
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  for (int i = 0; i < 4; i++) sigaction(signals[i], &action, &old_actions[i]);
  itimerval timer{}, old_timer{};
  timer.it_value = {(time_t)(options->timeout_ms / 1000), (suseconds_t)(options->timeout_ms % 1000 * 1000)};
  run.active = true;
  if (sigsetjmp(run.escape, 1) == 0) {
    setitimer(ITIMER_VIRTUAL, &timer, &old_timer);
    run_grid(options->grid, group);
  }
  run.active = run.in_kernel = false;
  run.current = nullptr;
  setitimer(ITIMER_VIRTUAL, &old_timer, nullptr);
  for (int i = 0; i < 4; i++) sigaction(signals[i], &old_actions[i], nullptr);
  sigaltstack(&old_stack, nullptr);
  for (int i = 0; i < count; i++) unmap_buffer(i, buffers[i], cells[i]);
}
