// A GPU thread is a fiber: it has its own stack and a stack pointer to return to.
#pragma once
#include <cstring>

#include "abi.h"

#if defined(__APPLE__)
#define SYMBOL(s) "_" s
#else
#define SYMBOL(s) s
#endif

// Saves the callee-saved registers on the stack, stores the stack pointer in *save, and resumes the stack `to`.
extern "C" void metal_switch(void** save, void* to);

#if defined(__x86_64__)
asm(".text\n.p2align 4\n.globl " SYMBOL("metal_switch") "\n" SYMBOL("metal_switch") ":\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nretq\n");

inline void* new_stack(char* top, void (*start)()) {
  void** slot = (void**)top;
  *--slot = nullptr;
  *--slot = (void*)start;
  for (int i = 0; i < 6; i++) *--slot = nullptr;
  return slot;
}
#elif defined(__aarch64__)
asm(".text\n.p2align 4\n.globl " SYMBOL("metal_switch") "\n" SYMBOL("metal_switch") ":\n"
    "sub sp,sp,#160\nstp x19,x20,[sp]\nstp x21,x22,[sp,#16]\nstp x23,x24,[sp,#32]\nstp x25,x26,[sp,#48]\n"
    "stp x27,x28,[sp,#64]\nstp x29,x30,[sp,#80]\n"
    "stp d8,d9,[sp,#96]\nstp d10,d11,[sp,#112]\nstp d12,d13,[sp,#128]\nstp d14,d15,[sp,#144]\n"
    "mov x9,sp\nstr x9,[x0]\nmov sp,x1\n"
    "ldp x19,x20,[sp]\nldp x21,x22,[sp,#16]\nldp x23,x24,[sp,#32]\nldp x25,x26,[sp,#48]\n"
    "ldp x27,x28,[sp,#64]\nldp x29,x30,[sp,#80]\n"
    "ldp d8,d9,[sp,#96]\nldp d10,d11,[sp,#112]\nldp d12,d13,[sp,#128]\nldp d14,d15,[sp,#144]\nadd sp,sp,#160\nret\n");

inline void* new_stack(char* top, void (*start)()) {
  void** slot = (void**)(top - 160);
  memset(slot, 0, 160);
  slot[11] = (void*)start;
  return slot;
}
#else
#error "metal_switch is written for x86-64 and arm64 only"
#endif

enum class Status : uint8_t { ready, at_threadgroup_barrier, at_simd_function, at_simdgroup_barrier, done };

struct Fiber {
  void* stack;
  ThreadContext context;
  Status status;
  uint32_t uid; // threadgroup << 10 | index in the threadgroup
  // Number of barriers that this thread has passed, by the memory that they order.
  uint32_t device_barriers, threadgroup_barriers, simd_device_barriers, simd_threadgroup_barriers;
  // The operation that the thread waits for.
  const char* operation;
  int line;
  uint32_t flags;
  void (*combine)(Group*);
  const void* in;
  void* out;
  int arg, uniform;

  bool same_wait(const Fiber& other) const {
    return status == other.status && line == other.line && operation == other.operation;
  }
};
