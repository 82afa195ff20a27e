#include "coroutine/stack.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "coroutine/aio_context.h"
#include "coroutine/compiler.h"
#include "coroutine/fatal.h"
#include "coroutine/thread_mutex.h"

#if COIMG_ASAN
#include <sanitizer/asan_interface.h>
#endif
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif

namespace coimg {

/// A mapping that holds one guarded stack, or kSlotsPerSlab unguarded ones. The object lies in the last slot.
struct StackSlab {
  char* mapping;
  size_t mapped_bytes;
  unsigned slots;
  uint64_t vacant = 0;        ///< a bit for each slot that holds no stack; guarded by the pool's lock
  StackSlab* next = nullptr;  ///< in the pool's list of slabs with vacant slots
  StackSlab* previous = nullptr;

  char* slot(unsigned index) const { return mapping + kStackGuardBytes + index * stack_size_bytes(); }
};

namespace {

/// Generous on purpose: untouched pages cost only addresses, while an overflow ends the process. AddressSanitizer's
/// frames are several times as large.
constexpr size_t kDefaultStackBytes = (COIMG_ASAN ? 1024 : 256) * 1024;
constexpr size_t kMinStackBytes = 32 * 1024;
constexpr size_t kMaxStackBytes = 64 * 1024 * 1024;

/// A guarded stack takes two mappings; these take half of the 65,530 that Linux gives a process by default.
constexpr size_t kMaxGuardedStacks = 16 * 1024;
constexpr unsigned kSlotsPerSlab = 64;  ///< as many as StackSlab::vacant has bits

/// A thread keeps this many free stacks, enough for a thousand coroutines that nest...
constexpr unsigned kThreadCacheStacks = 1024 + 64;
/// ...and moves this many at once to or from the shared pool, to take its lock rarely.
constexpr unsigned kBatchStacks = 64;
/// The stock of the shared pool: what it keeps for ever (16 MiB when each touched 8 KiB).
constexpr size_t kSharedPoolStacks = 2048;
/// More than that stays for so long after it was last needed.
constexpr int64_t kTrimNs = 1'000'000'000;
/// What goes back goes in steps, as each stack takes a system call and an event loop waits for it.
constexpr size_t kTrimStacks = 256;
constexpr int64_t kTrimStepNs = 5'000'000;

/// The colours differ by some of the cache lines that a coroutine needs first, and keep these within one page.
constexpr unsigned kColours = 8;
constexpr size_t kColourBytes = 256;

/// The canary fills a cache line, as a frame with a hole in it may miss a single word.
constexpr size_t kCanaryWords = 8;
constexpr uint64_t kCanary = 0xc0de57ac4c0de57aULL;
constexpr size_t kCanaryBytes = kCanaryWords * sizeof(kCanary);

constexpr size_t kCacheLine = 64;
/// What a coroutine touches of a stack before it does anything: the Stack, the object below it and its first frames.
constexpr size_t kFirstLines = 6;
/// So many ahead of its use a stack is fetched, since who needs one often needs more.
constexpr unsigned kPrefetchDistance = 3;

/// Room for each of the two objects at the top of a slot; keeps what is below them aligned to cache lines.
constexpr size_t kHeaderBytes = 64;
static_assert(sizeof(Stack) <= kHeaderBytes && sizeof(StackSlab) <= kHeaderBytes);

size_t page_bytes() {
  static const size_t size = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  return size;
}

size_t configured_stack_bytes() {
  size_t bytes = kDefaultStackBytes;
  if (const char* text = std::getenv("COIMG_STACK_KIB")) {
    char* end = nullptr;
    const unsigned long kib = std::strtoul(text, &end, 10);
    if (end != text && *end == '\0') {
      bytes = std::clamp<size_t>(std::min<size_t>(kib, kMaxStackBytes / 1024) * 1024, kMinStackBytes, kMaxStackBytes);
    }
  }
  return (bytes + page_bytes() - 1) / page_bytes() * page_bytes();
}

void poison([[maybe_unused]] Stack* stack) {
#if COIMG_ASAN
  __asan_poison_memory_region(stack->low, static_cast<size_t>(stack->top() - stack->low));
#endif
}

void unpoison([[maybe_unused]] Stack* stack) {
#if COIMG_ASAN
  __asan_unpoison_memory_region(stack->low, static_cast<size_t>(stack->top() - stack->low));
#endif
}

void write_canary(char* slot_end) {
  for (size_t i = 0; i < kCanaryWords; ++i) {
    std::memcpy(slot_end - kCanaryBytes + i * sizeof(kCanary), &kCanary, sizeof(kCanary));
  }
}

Stack* make_stack_in_slot(StackSlab* slab, unsigned index, bool guarded) {
  static std::atomic<unsigned> next_colour{0};
  const size_t colour = next_colour.fetch_add(1, std::memory_order_relaxed) % kColours * kColourBytes;
  char* low = slab->slot(index);
  char* high = low + stack_size_bytes();
  write_canary(high);
  auto* stack = new (high - kCanaryBytes - kHeaderBytes - colour - kHeaderBytes)
      Stack{low, slab, 0, guarded, nullptr, nullptr, nullptr};
#ifdef VALGRIND_STACK_REGISTER
  stack->valgrind_id = VALGRIND_STACK_REGISTER(low, stack->top());
#endif
  return stack;
}

StackSlab* map_slab(unsigned slots) {
  const size_t bytes = kStackGuardBytes + slots * stack_size_bytes();
  void* mapping =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (mapping == MAP_FAILED) return nullptr;
  if (::mprotect(mapping, kStackGuardBytes, PROT_NONE) != 0) {
    ::munmap(mapping, bytes);
    return nullptr;
  }
  // With huge pages the first touch of one stack would commit those of its neighbours.
  if (slots > 1) ::madvise(mapping, bytes, MADV_NOHUGEPAGE);
  char* place = static_cast<char*>(mapping) + bytes - kCanaryBytes - kHeaderBytes;
  return new (place) StackSlab{static_cast<char*>(mapping), bytes, slots};
}

void unmap_slab(StackSlab* slab) { ::munmap(slab->mapping, slab->mapped_bytes); }

}  // namespace

/// The head of the list of all stacks, for coimg-gdb.py. Guarded by the pool's lock.
Stack* all_stacks = nullptr;

namespace {

/// What all threads share. Never destroyed: detached threads may end after main() did.
class StackPool {
 public:
  static StackPool& instance() {
    static auto* pool = new StackPool;
    return *pool;
  }

  /// Writes 1 to kBatchStacks free stacks to `stacks` and returns how many.
  unsigned take_batch(Stack** stacks);
  void give_batch(Stack* const* stacks, unsigned count);
  int64_t trim();

  StackCounts counts();
  size_t set_max_guarded(size_t limit);

 private:
  Stack* make_stack();
  Stack* make_guarded_stack();
  Stack* make_slab_stack_locked() CO_REQUIRES(lock_);
  void destroy_stack(Stack* stack);
  void destroy_slab_stack_locked(Stack* stack) CO_REQUIRES(lock_);
  void list_locked(Stack* stack) CO_REQUIRES(lock_);
  void unlist_locked(Stack* stack) CO_REQUIRES(lock_);
  void link_vacant_locked(StackSlab* slab) CO_REQUIRES(lock_);
  void unlink_vacant_locked(StackSlab* slab) CO_REQUIRES(lock_);

  ThreadMutex lock_;
  std::vector<Stack*> free_ CO_GUARDED_BY(lock_);
  size_t fewest_free_ CO_GUARDED_BY(lock_) = 0;  ///< lately: so many nobody needed
  int64_t next_trim_ns_ CO_GUARDED_BY(lock_) = 0;
  StackSlab* with_vacant_ CO_GUARDED_BY(lock_) = nullptr;
  size_t guarded_ CO_GUARDED_BY(lock_) = 0;
  size_t unguarded_ CO_GUARDED_BY(lock_) = 0;
  size_t max_guarded_ CO_GUARDED_BY(lock_) = kMaxGuardedStacks;
  std::atomic<bool> surplus_{false};  ///< `free_` is above the stock
};

unsigned StackPool::take_batch(Stack** stacks) {
  {
    const ThreadMutexGuard hold(lock_);
    const size_t count = std::min<size_t>(free_.size(), kBatchStacks);
    std::copy(free_.end() - static_cast<ptrdiff_t>(count), free_.end(), stacks);
    free_.resize(free_.size() - count);
    fewest_free_ = std::min(fewest_free_, free_.size());
    if (count > 0) return static_cast<unsigned>(count);
  }
  *stacks = make_stack();  // new ones are made one by one: most programs need few
  return 1;
}

void StackPool::give_batch(Stack* const* stacks, unsigned count) {
  {
    const ThreadMutexGuard hold(lock_);
    free_.insert(free_.end(), stacks, stacks + count);
    surplus_.store(free_.size() > kSharedPoolStacks, std::memory_order_relaxed);
  }
  trim();
}

int64_t StackPool::trim() {
  if (!surplus_.load(std::memory_order_relaxed)) return -1;
  const int64_t now = clock_now_ns(ClockType::kMonotonic);
  std::vector<Stack*> unneeded;
  int64_t next_ns = kTrimStepNs;
  {
    const ThreadMutexGuard hold(lock_);
    if (now < next_trim_ns_) return next_trim_ns_ - now;
    while (unneeded.size() < kTrimStacks && fewest_free_ > 0 && free_.size() > kSharedPoolStacks) {
      unneeded.push_back(free_.back());
      free_.pop_back();
      --fewest_free_;
    }
    if (free_.size() <= kSharedPoolStacks) {
      surplus_.store(false, std::memory_order_relaxed);
      next_ns = -1;
    } else if (fewest_free_ == 0) {  // watch what is needed for a while
      fewest_free_ = free_.size();
      next_ns = kTrimNs;
    }
    next_trim_ns_ = now + next_ns;
  }
  for (Stack* stack : unneeded) destroy_stack(stack);
  return next_ns;
}

void StackPool::list_locked(Stack* stack) {
  stack->next_of_all = all_stacks;
  stack->link_to_this = &all_stacks;
  if (all_stacks != nullptr) all_stacks->link_to_this = &stack->next_of_all;
  all_stacks = stack;
}

void StackPool::unlist_locked(Stack* stack) {
  *stack->link_to_this = stack->next_of_all;
  if (stack->next_of_all != nullptr) stack->next_of_all->link_to_this = stack->link_to_this;
}

Stack* StackPool::make_stack() {
  if (Stack* stack = make_guarded_stack()) return stack;
  // Past the limit, or the kernel has no mapping left: a slab needs one for many.
  const ThreadMutexGuard hold(lock_);
  Stack* stack = make_slab_stack_locked();
  if (stack == nullptr) {
    fatal("no memory for another coroutine stack, after %zu: %s", guarded_ + unguarded_, std::strerror(errno));
  }
  return stack;
}

Stack* StackPool::make_guarded_stack() {
  {
    const ThreadMutexGuard hold(lock_);
    if (guarded_ >= max_guarded_) return nullptr;
    ++guarded_;
  }
  StackSlab* slab = map_slab(1);
  if (slab == nullptr) {
    const ThreadMutexGuard hold(lock_);
    --guarded_;
    return nullptr;
  }
  Stack* stack = make_stack_in_slot(slab, 0, true);
  const ThreadMutexGuard hold(lock_);
  list_locked(stack);
  return stack;
}

Stack* StackPool::make_slab_stack_locked() {
  if (with_vacant_ == nullptr) {
    StackSlab* slab = map_slab(kSlotsPerSlab);
    if (slab == nullptr) return nullptr;
    slab->vacant = ~uint64_t{0};
    for (unsigned i = 0; i < kSlotsPerSlab; ++i) write_canary(slab->slot(i) + stack_size_bytes());
    link_vacant_locked(slab);
  }
  StackSlab* slab = with_vacant_;
  const auto index = static_cast<unsigned>(std::countr_zero(slab->vacant));
  slab->vacant &= slab->vacant - 1;
  if (slab->vacant == 0) unlink_vacant_locked(slab);
  ++unguarded_;
  Stack* stack = make_stack_in_slot(slab, index, false);
  list_locked(stack);
  return stack;
}

void StackPool::destroy_stack(Stack* stack) {
  unpoison(stack);  // whoever maps these addresses next does not know
#ifdef VALGRIND_STACK_DEREGISTER
  VALGRIND_STACK_DEREGISTER(stack->valgrind_id);
#endif
  if (!stack->guarded) {
    // All but the topmost page, which holds the canary of the stack above and maybe the slab.
    ::madvise(stack->low, stack_size_bytes() - page_bytes(), MADV_DONTNEED);
    const ThreadMutexGuard hold(lock_);
    return destroy_slab_stack_locked(stack);
  }
  {
    const ThreadMutexGuard hold(lock_);
    unlist_locked(stack);
    --guarded_;
  }
  unmap_slab(stack->slab);
}

void StackPool::destroy_slab_stack_locked(Stack* stack) {
  StackSlab* slab = stack->slab;
  const auto index = static_cast<unsigned>(static_cast<size_t>(stack->low - slab->slot(0)) / stack_size_bytes());
  unlist_locked(stack);
  --unguarded_;
  if (slab->vacant == 0) link_vacant_locked(slab);
  slab->vacant |= uint64_t{1} << index;
  if (slab->vacant == ~uint64_t{0}) {
    unlink_vacant_locked(slab);
    unmap_slab(slab);
  }
}

void StackPool::link_vacant_locked(StackSlab* slab) {
  slab->previous = nullptr;
  slab->next = with_vacant_;
  if (with_vacant_ != nullptr) with_vacant_->previous = slab;
  with_vacant_ = slab;
}

void StackPool::unlink_vacant_locked(StackSlab* slab) {
  (slab->previous != nullptr ? slab->previous->next : with_vacant_) = slab->next;
  if (slab->next != nullptr) slab->next->previous = slab->previous;
}

StackCounts StackPool::counts() {
  const ThreadMutexGuard hold(lock_);
  return {guarded_, unguarded_, free_.size()};
}

size_t StackPool::set_max_guarded(size_t limit) {
  const ThreadMutexGuard hold(lock_);
  return std::exchange(max_guarded_, limit);
}

/// A thread's own free stacks. Needs no constructor, so that access is one load; see ThreadExit for its end.
///
/// They are kept by address, and taking one touches none of the others: with many alive they are in no cache.
struct ThreadCache {
  Stack* free[kThreadCacheStacks];
  unsigned count;
  bool prepared;  ///< this thread has the overflow handler and a ThreadExit
  bool ended;     ///< the thread is ending: keep nothing
};
constinit thread_local ThreadCache cache = {};

/// Moves some of the thread's free stacks to the shared pool.
void spill(unsigned amount) {
  cache.count -= amount;
  StackPool::instance().give_batch(cache.free + cache.count, amount);
}

/// Empties the cache when the thread ends.
struct ThreadExit {
  ~ThreadExit() {
    cache.ended = true;
    spill(cache.count);
    remove_stack_overflow_handler();
  }
};

/// Asks the processor for what acquire_stack() will hand out soon.
void prefetch_first_lines(const Stack* stack) {
  for (size_t line = 0; line < kFirstLines; ++line) {
    __builtin_prefetch(reinterpret_cast<const char*>(stack) - line * kCacheLine, 1);
  }
}

}  // namespace

size_t stack_size_bytes() {
  static const size_t bytes = configured_stack_bytes();
  return bytes;
}

COIMG_THREAD_LOCAL_ACCESSOR void prepare_thread_for_stacks() {
  if (cache.prepared) return;
  cache.prepared = true;
  install_stack_overflow_handler();
  thread_local ThreadExit at_exit;
  (void)at_exit;
}

COIMG_THREAD_LOCAL_ACCESSOR Stack* acquire_stack() {
  if (cache.count == 0) [[unlikely]] {
    if (!cache.prepared) prepare_thread_for_stacks();
    cache.count = StackPool::instance().take_batch(cache.free);
  }
  Stack* stack = cache.free[--cache.count];
  if (cache.count >= kPrefetchDistance) prefetch_first_lines(cache.free[cache.count - kPrefetchDistance]);
  unpoison(stack);
  return stack;
}

COIMG_THREAD_LOCAL_ACCESSOR void release_stack(Stack* stack) {
  if (!cache.prepared) [[unlikely]]
    prepare_thread_for_stacks();  // made by another thread
  poison(stack);
  cache.free[cache.count++] = stack;
  if (cache.count == kThreadCacheStacks) [[unlikely]]
    spill(kBatchStacks);
  if (cache.ended) [[unlikely]]
    spill(cache.count);
}

bool stack_guard_contains(const Stack* stack, const void* address) {
  const auto* byte = static_cast<const char*>(address);
  return byte >= stack->slab->mapping && byte < stack->slab->mapping + kStackGuardBytes;
}

bool stack_canary_intact(const Stack* stack) {
  if (stack->guarded || stack->low == stack->slab->slot(0)) return true;
  // The last cache line of the stack below; that one never runs into it, as its own use starts further down.
  const char* line = stack->low - kCanaryBytes;
  for (size_t i = 0; i < kCanaryWords; ++i) {
    uint64_t word;
    std::memcpy(&word, line + i * sizeof(word), sizeof(word));
    if (word != kCanary) return false;
  }
  return true;
}

size_t stack_high_water_bytes(const Stack* stack) {
  const size_t pages = stack_size_bytes() / page_bytes();
  std::vector<unsigned char> resident(pages);
  if (::mincore(stack->low, stack_size_bytes(), resident.data()) != 0) return 0;
  for (size_t i = 0; i < pages; ++i) {
    if ((resident[i] & 1) != 0) return (pages - i) * page_bytes();
  }
  return 0;
}

int64_t trim_stack_pool() { return StackPool::instance().trim(); }

StackCounts stack_counts() { return StackPool::instance().counts(); }

size_t set_max_guarded_stacks(size_t limit) { return StackPool::instance().set_max_guarded(limit); }

}  // namespace coimg
