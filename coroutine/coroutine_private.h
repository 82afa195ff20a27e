// What the runtime keeps for each coroutine and each thread. Internal: users see coroutine.h.
#pragma once

#include <atomic>

#include "coroutine/context_switch.h"
#include "coroutine/coroutine.h"
#include "coroutine/stack.h"

namespace coimg {

/// A FIFO of coroutines, linked through Private::next. Each coroutine is in one list at most, guarded by scheduled_by.
class CoroutineList {
 public:
  [[nodiscard]] bool empty() const { return head_ == nullptr; }
  void push_back(Coroutine::Private* co);
  Coroutine::Private* pop_front();
  /// Moves all of `other` behind the own ones.
  void append(CoroutineList& other);

 private:
  Coroutine::Private* head_ = nullptr;
  Coroutine::Private* tail_ = nullptr;
};

/// A coroutine. It lies at the top of its own stack and dies with it.
struct Coroutine::Private {
  explicit Private(Stack* own_stack) : facade(this), stack(own_stack) {}

  Coroutine facade;
  Stack* stack;
  Fiber fiber;

  EntryFunction entry = nullptr;  ///< null once it has returned
  void* argument = nullptr;
  const char* name = nullptr;

  /// Set by enter(): the thread runs it or it waits for one that it entered; `caller` is then who entered it, null for
  /// code outside of coroutines.
  bool entered = false;
  Private* caller = nullptr;

  std::atomic<AioContext*> context{nullptr};

  /// Who put it on a list of coroutines to be entered; null when it is on none.
  std::atomic<const char*> scheduled_by{nullptr};
  std::atomic<Private*> next{nullptr};  ///< in that list

  /// Coroutines that it woke: they run when it yields or ends.
  CoroutineList woken;

  static Private& of(Coroutine* co) { return *co->private_; }

  /// Claims the coroutine for a list, or aborts naming this and the earlier claim.
  void claim_for_schedule();
};

/// What the runtime knows about a thread. Trivial, so that access needs no initialisation guard.
struct ThreadState {
  Coroutine::Private* current;  ///< the running coroutine
  AioContext* context;          ///< the context whose loop runs here, or that the thread made first
};

/// The calling thread's. Do not keep the reference across a yield: the coroutine may go on in another thread.
ThreadState& thread_state();

/// For messages: the running coroutine's name, or words for the code outside.
const char* running_name();

/// Takes a coroutine off its list just before it is entered.
inline void clear_schedule(Coroutine::Private& co) { co.scheduled_by.store(nullptr, std::memory_order_release); }

inline void CoroutineList::push_back(Coroutine::Private* co) {
  co->next.store(nullptr, std::memory_order_relaxed);
  if (tail_ != nullptr) {
    tail_->next.store(co, std::memory_order_relaxed);
  } else {
    head_ = co;
  }
  tail_ = co;
}

inline Coroutine::Private* CoroutineList::pop_front() {
  Coroutine::Private* co = head_;
  head_ = co->next.load(std::memory_order_relaxed);
  if (head_ == nullptr) tail_ = nullptr;
  return co;
}

inline void CoroutineList::append(CoroutineList& other) {
  if (other.empty()) return;
  if (tail_ != nullptr) {
    tail_->next.store(other.head_, std::memory_order_relaxed);
  } else {
    head_ = other.head_;
  }
  tail_ = other.tail_;
  other.head_ = other.tail_ = nullptr;
}

}  // namespace coimg
