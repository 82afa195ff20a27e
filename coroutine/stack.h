// Stacks for coroutines: where they come from and where they go.
//
//   low address                                                            high address
//   | guard (PROT_NONE) | usable, grows down  <------  coroutine object | Stack | colour | slab | canary |
//                       ^ low                                           ^ top()
//
// Each stack has a guard below it, so that an overflow ends the process with the coroutine's name instead of damaging
// a neighbour. A guard costs a memory mapping, and a process has 65,530 of those by default; so past kMaxGuardedStacks
// stacks are cut from large slabs that have one guard at their bottom. There the last cache line of each stack holds a
// canary for the stack above it, which stack_check() looks at.
//
// The colour is a gap of changing size. Without it the busiest part of every stack would lie at the same offset of its
// pages and fall into the same few sets of the processor's caches.
//
// Free stacks are pooled, by each thread and by a shared pool behind that. The first is bounded. The second keeps what
// was in use lately, so that a program with a hundred thousand coroutines does not go to the kernel for each; what was
// not needed for a second goes back, down to a small stock.
#pragma once

#include <cstddef>
#include <cstdint>

namespace coimg {

class Coroutine;
struct StackSlab;

/// A stack; the object lies at the top of its own memory.
struct Stack {
  char* low;        ///< the lowest usable byte
  StackSlab* slab;  ///< the mapping it was cut from
  unsigned valgrind_id;
  bool guarded;          ///< false: a canary takes the place of the guard
  Coroutine* tenant;     ///< who runs on it; for debuggers
  Stack* next_of_all;    ///< in the list of all stacks; for debuggers
  Stack** link_to_this;  ///< what points here in that list

  /// The end of the usable part.
  char* top() { return reinterpret_cast<char*>(this); }
};

/// The addresses below Stack::low that fault. A frame larger than this could step over the guard.
inline constexpr size_t kStackGuardBytes = 64 * 1024;

/// Usable bytes of each stack, the same for all: COIMG_STACK_KIB or the default.
size_t stack_size_bytes();

/// A stack from the pool or the kernel. Aborts when there is no memory: coroutines are made where nobody can be told.
Stack* acquire_stack();

/// Gives a stack back that nothing runs on.
void release_stack(Stack* stack);

/// Whether `address` lies in the guard below a stack or, when that has none, in the one of its slab, which a recursion
/// without end reaches through the neighbours. Signal-safe.
bool stack_guard_contains(const Stack* stack, const void* address);

/// Whether the canary below an unguarded stack is whole; always true for a guarded one.
bool stack_canary_intact(const Stack* stack);

/// How deep the stack has been used since its memory came from the kernel, in bytes and rounded to pages. Slow.
size_t stack_high_water_bytes(const Stack* stack);

/// Numbers for tests and diagnostics.
struct StackCounts {
  size_t guarded;    ///< mapped stacks with a guard, free ones included
  size_t unguarded;  ///< stacks cut from slabs and not given back
  size_t pooled;     ///< free ones in the shared pool
};
StackCounts stack_counts();

/// Gives back to the kernel some of what the shared pool has not needed for a second. Returns in how many nanoseconds
/// there will be more to do, or -1 when the pool is down to its stock.
int64_t trim_stack_pool();

/// For tests: past how many stacks to go without guards. Returns the previous limit.
size_t set_max_guarded_stacks(size_t limit);

/// Prepares the calling thread for running coroutines; does nothing the next time. A thread may run those that others
/// made, so this is for each that gets a context, not only for those that acquire stacks.
void prepare_thread_for_stacks();

/// Prepares the calling thread to report a stack overflow: prepare_thread_for_stacks() does it.
void install_stack_overflow_handler();
/// Undoes the thread's part of it, at thread exit.
void remove_stack_overflow_handler();

}  // namespace coimg
