// The scheduler of threads, with barriers and SIMD-group functions.
#pragma once
#include <utility>

#include "memory.h"

static void wait_for(Status status, const char* operation, int line) {
  settle_pending();
  run.current->status = status;
  run.current->operation = operation;
  run.current->line = line;
  to_scheduler();
}

static std::string waiting(int low, int high) {
  struct Kind {
    const Fiber* fiber;
    int count, first;
  };
  std::vector<Kind> kinds;
  int returned = 0;
  for (int i = low; i < high; i++) {
    const Fiber& fiber = run.fibers[i];
    if (fiber.status == Status::done) {
      returned++;
      continue;
    }
    bool known = false;
    for (auto& kind : kinds)
      if ((known = kind.fiber->same_wait(fiber))) {
        kind.count++;
        break;
      }
    if (!known) kinds.push_back({&fiber, 1, i});
  }
  std::string text;
  for (auto& kind : kinds)
    text += (text.empty() ? "" : "; ") + std::to_string(kind.count) + " thread(s), first " +
            std::to_string(kind.first) + ", in " + kind.fiber->operation + " at line " +
            std::to_string(kind.fiber->line);
  return text + (returned ? "; " + std::to_string(returned) + " thread(s) have returned" : "");
}

static int combine_line;
static void combine(int base, const Fiber& first, uint32_t mask) {
  Group group{};
  group.active = mask;
  group.order = run.options->seed ? random_bits() | 2 : 0;
  for (int lane = 0; lane < 32; lane++) {
    if (!((mask >> lane) & 1)) continue;
    Fiber& fiber = run.fibers[base + lane];
    group.in[lane] = fiber.in;
    group.out[lane] = fiber.out;
    group.arg[lane] = fiber.arg;
    if (first.uniform && fiber.arg != first.arg)
      fail(nullptr, first.line,
           "%s: the lane/delta/mask argument differs between lanes (%d and %d); MSL requires a uniform one",
           first.operation, first.arg, fiber.arg);
    fiber.status = Status::ready;
  }
  combine_line = first.line;
  first.combine(&group);
}

// Continue a SIMD-group if all its running threads wait for the same operation. stuck: no other thread can continue.
static bool advance_simdgroup(int index, bool stuck) {
  int base = index * 32, end = base + 32 < run.count ? base + 32 : run.count;
  Fiber* first = nullptr;
  bool together = true;
  uint32_t mask = 0;
  for (int i = base; i < end; i++) {
    Fiber& fiber = run.fibers[i];
    if (fiber.status == Status::done) continue;
    if (fiber.status == Status::ready) return false;
    if (!first) first = &fiber;
    together = together && fiber.same_wait(*first);
    mask |= 1u << (i - base);
  }
  if (!first) return false;
  if (!together) {
    if (stuck)
      fail(nullptr, first->line, "SIMD-group %d diverged at a SIMD-group function or barrier: %s", index,
           waiting(base, end).c_str());
    return false;
  }
  if (first->status == Status::at_threadgroup_barrier) return false;
  if (first->status == Status::at_simd_function) {
    combine(base, *first, mask);
    return true;
  }
  for (int i = base; i < end; i++) {
    Fiber& fiber = run.fibers[i];
    if (fiber.status == Status::done) continue;
    fiber.simd_device_barriers += fiber.flags & 1;
    fiber.simd_threadgroup_barriers += fiber.flags >> 1 & 1;
    fiber.status = Status::ready;
  }
  return true;
}

static void pass_threadgroup_barrier() {
  const Fiber* first = nullptr;
  bool together = true, returned = false;
  for (int i = 0; i < run.count; i++) {
    Fiber& fiber = run.fibers[i];
    if (fiber.status == Status::done) {
      returned = true;
      continue;
    }
    if (!first) first = &fiber;
    together = together && fiber.status == Status::at_threadgroup_barrier && fiber.same_wait(*first);
  }
  if (!together) {
    for (int i = 0; i * 32 < run.count; i++) advance_simdgroup(i, true);
    fail(nullptr, first->line, "divergent threadgroup_barrier: %s", waiting(0, run.count).c_str());
  }
  if (returned)
    fail(nullptr, first->line, "threadgroup_barrier not reached by all threads: %s", waiting(0, run.count).c_str());
  for (int i = 0; i < run.count; i++) {
    Fiber& fiber = run.fibers[i];
    if (fiber.flags != first->flags) fail(nullptr, first->line, "threadgroup_barrier with different mem_flags");
    fiber.device_barriers += fiber.flags & 1;
    fiber.threadgroup_barriers += fiber.flags >> 1 & 1;
    fiber.status = Status::ready;
  }
}

static void run_threadgroup() {
  std::vector<int> ready;
  for (;;) {
    ready.clear();
    int returned = 0;
    for (int i = 0; i < run.count; i++) {
      if (run.fibers[i].status == Status::ready) ready.push_back(i);
      returned += run.fibers[i].status == Status::done;
    }
    if (returned == run.count) return;
    for (size_t k = 0; k < ready.size(); k++) {
      if (run.options->seed) std::swap(ready[k], ready[k + random_bits() % (ready.size() - k)]);
      run.current = &run.fibers[ready[k]];
      run.in_kernel = true;
      metal_switch(&run.scheduler, run.current->stack);
      run.in_kernel = false;
      run.current = nullptr;
      if (run.report->failed) siglongjmp(run.escape, 1);
    }
    bool moved = false, any_ready = false, all_done = true;
    for (int i = 0; i * 32 < run.count; i++) moved |= advance_simdgroup(i, false);
    for (int i = 0; i < run.count; i++) {
      any_ready |= run.fibers[i].status == Status::ready;
      all_done &= run.fibers[i].status == Status::done;
    }
    if (!moved && !any_ready && !all_done) pass_threadgroup_barrier();
  }
}
