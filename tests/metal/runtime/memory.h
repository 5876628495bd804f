// access() checks every load and store of the kernel: bounds, initialization, data races.
#pragma once
#include "state.h"

static std::string thread_name(uint32_t uid) {
  return "thread " + std::to_string(uid & 1023) + " of threadgroup " + std::to_string(uid >> 10);
}

// Whether the current thread sees everything that thread `uid` did before its barrier number `barrier`.
static bool ordered(const Fiber* now, bool threadgroup_memory, uint32_t uid, uint32_t barrier, uint32_t simd_barrier) {
  if ((uid >> 10) != (now->uid >> 10)) return false;
  if (barrier < (threadgroup_memory ? now->threadgroup_barriers : now->device_barriers)) return true;
  bool same_simdgroup = (uid >> 5) == (now->uid >> 5);
  return same_simdgroup &&
         simd_barrier < (threadgroup_memory ? now->simd_threadgroup_barriers : now->simd_device_barriers);
}

static std::string place(const Region& region, uint64_t address) {
  if (region.buffer) {
    int64_t size = region.buffer->element_bytes, offset = (int64_t)(address - region.low);
    int64_t index = offset >= 0 ? offset / size : -((size - 1 - offset) / size);
    return std::string(region.buffer->name) + "[" + std::to_string(index) + "]";
  }
  uint64_t offset = address - region.low;
  const ThreadgroupVariable* below = nullptr;
  for (auto& variable : run.variables)
    if (variable.offset <= offset && (!below || variable.offset > below->offset)) below = &variable;
  if (!below) return "threadgroup memory";
  return std::string("threadgroup ") + below->name + " at byte " + std::to_string(offset - below->offset) + " of " +
         std::to_string(below->size);
}

static bool inside_variable(uint64_t offset, uint32_t bytes) {
  for (auto& variable : run.variables)
    if (offset >= variable.offset && offset + bytes <= variable.offset + variable.size) return true;
  return false;
}

static void settle_pending() {
  PendingWrite& write = run.pending;
  if (!write.waiting) return;
  write.waiting = false;
  bool changed = memcmp((void*)write.address, write.before, write.bytes) != 0;
  if (changed || run.options->equal_writes_race) {
    run.current = write.fiber;
    fail(write.code, 0, "%s", write.message);
  }
}

enum class Access { read, write, update };

static const char* race_of(const Cell& cell, const Fiber* now, bool threadgroup_memory, Access kind, bool atomic,
                           uint32_t* other) {
  bool both_atomic = atomic && (cell.flags & written_atomically);
  if ((cell.flags & written) && cell.writer != now->uid && !both_atomic &&
      !ordered(now, threadgroup_memory, cell.writer, cell.writer_barrier, cell.writer_simd_barrier)) {
    *other = cell.writer;
    return kind == Access::read ? "read after write" : "write after write";
  }
  bool only_atomic_reads = atomic && !(cell.flags & read_plainly);
  if (kind == Access::read || !(cell.flags & was_read) || only_atomic_reads) return nullptr;
  uint32_t barrier = threadgroup_memory ? now->threadgroup_barriers : now->device_barriers;
  bool racy;
  if (cell.flags & read_by_anyone)
    racy = true;
  else if (cell.flags & read_by_threadgroup)
    racy = (cell.reader >> 10) != (now->uid >> 10) || cell.reader_barrier >= barrier;
  else {
    racy = !ordered(now, threadgroup_memory, cell.reader, cell.reader_barrier, cell.reader_simd_barrier);
    if (!(cell.flags & read_by_simdgroup)) racy = racy && cell.reader != now->uid;
  }
  *other = cell.reader;
  return racy ? "write after read" : nullptr;
}

static void record_read(Cell& cell, const Fiber* now, uint32_t barrier, uint32_t simd_barrier, bool atomic) {
  const uint8_t shared = read_by_simdgroup | read_by_threadgroup | read_by_anyone;
  bool first = !(cell.flags & was_read), mine = cell.reader == now->uid && !(cell.flags & shared);
  bool my_threadgroup = (cell.reader >> 10) == (now->uid >> 10);
  if (first || mine || (my_threadgroup && cell.reader_barrier < barrier && !(cell.flags & read_by_anyone))) {
    if (!mine || first) cell.flags &= ~(shared | read_plainly);
    cell.reader = now->uid;
    cell.reader_barrier = barrier;
    cell.reader_simd_barrier = simd_barrier;
  } else if (!my_threadgroup) {
    cell.flags |= read_by_anyone;
  } else if ((cell.reader >> 5) == (now->uid >> 5)) {
    cell.flags |= read_by_simdgroup;
    if (simd_barrier > cell.reader_simd_barrier) cell.reader_simd_barrier = simd_barrier;
  } else {
    cell.flags |= read_by_threadgroup;
  }
  cell.flags |= was_read | (atomic ? 0 : read_plainly);
}

static void record_write(Cell& cell, const Fiber* now, uint32_t barrier, uint32_t simd_barrier, bool atomic) {
  cell.writer = now->uid;
  cell.writer_barrier = barrier;
  cell.writer_simd_barrier = simd_barrier;
  cell.flags = uint8_t(initialized | written | (atomic ? written_atomically : 0));
}

static void report_race(const Region& region, uint64_t address, uint32_t bytes, const char* race, uint32_t other,
                        Access kind, void* code) {
  Fiber* now = run.current;
  bool apart = (other >> 10) != (now->uid >> 10),
       both_write = kind == Access::write && !strcmp(race, "write after write");
  char message[sizeof run.pending.message];
  snprintf(message, sizeof message, "data race (%s%s) on %s: %s against %s, no barrier between%s", race,
           both_write ? ", different values" : "", place(region, address).c_str(), thread_name(now->uid).c_str(),
           thread_name(other).c_str(), apart ? " (different threadgroups can never synchronize)" : "");
  if (!both_write || bytes > sizeof run.pending.before) fail(code, 0, "%s", message);
  run.pending = {true, address, bytes, {}, {}, code, now};
  memcpy(run.pending.before, (void*)address, bytes);
  memcpy(run.pending.message, message, sizeof message);
}

static void check_cells(Region& region, uint64_t address, uint32_t bytes, Access kind, bool atomic, void* code) {
  Fiber* now = run.current;
  bool threadgroup_memory = !region.buffer;
  uint32_t size = threadgroup_memory ? 1 : region.buffer->element_bytes;
  uint32_t barrier = threadgroup_memory ? now->threadgroup_barriers : now->device_barriers;
  uint32_t simd_barrier = threadgroup_memory ? now->simd_threadgroup_barriers : now->simd_device_barriers;
  for (uint64_t i = (address - region.low) / size; i <= (address + bytes - 1 - region.low) / size; i++) {
    Cell& cell = region.cells[i];
    if (kind != Access::write && !(cell.flags & initialized))
      fail(code, 0, "read of uninitialized memory: %s", place(region, address).c_str());
    uint32_t other = 0;
    if (const char* race = race_of(cell, now, threadgroup_memory, kind, atomic, &other))
      report_race(region, address, bytes, race, other, kind, code);
    if (kind != Access::write) record_read(cell, now, barrier, simd_barrier, atomic);
    if (kind != Access::read) record_write(cell, now, barrier, simd_barrier, atomic);
  }
}

static void access(void* pointer, uint32_t bytes, Access kind, bool atomic, void* code) {
  uint64_t address = (uint64_t)pointer;
  if (!run.in_kernel || !run.current || address - run.stacks_low < run.stacks_bytes) return;
  settle_pending();
  if (run.options->preempt && --run.accesses_left == 0) {
    run.accesses_left = 1 + random_bits() % (2 * run.options->preempt);
    to_scheduler();
  }
  const char* verb = kind == Access::read ? "read" : "write";
  uint64_t relative = address - (uint64_t)run.arena;
  if (relative >= SLOT_BYTES * SLOTS) {
    if (kind == Access::read) return; // constants of the program
    Dl_info info;
    if (address > 65536 && dladdr(pointer, &info))
      fail(code, 0, "write to a program-scope variable (MSL has none that are mutable)");
    fail(code, 0, "wild write to address %p", pointer);
  }
  Region& region = run.regions[relative / SLOT_BYTES];
  if (!region.low) fail(code, 0, "wild %s at %p", verb, pointer);
  Buffer* buffer = region.buffer;
  bool within = address >= region.low && address + bytes <= region.high;
  if (!within || (!buffer && !inside_variable(address - region.low, bytes))) {
    std::string size = buffer ? ", size " + std::to_string(buffer->bytes / buffer->element_bytes) : "";
    fail(code, 0, "out-of-bounds %s of %u bytes: %s%s", verb, bytes, place(region, address).c_str(), size.c_str());
  }
  if (buffer) {
    if (kind != Access::write) buffer->read_bytes += bytes;
    if (kind != Access::read) buffer->written_bytes += bytes;
    if (!buffer->is_output) {
      if (kind != Access::read) fail(code, 0, "write to an input: %s", place(region, address).c_str());
      return;
    }
  }
  check_cells(region, address, bytes, kind, atomic, code);
}
