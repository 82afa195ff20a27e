// What the runtime keeps for each coroutine. Internal: users see coroutine.h.
#pragma once

#include <atomic>

#include "coroutine/coroutine.h"
#include "coroutine/stack.h"

namespace coimg {

/// A FIFO of coroutines, linked through Private::next. Each coroutine is in one list at most, guarded by scheduled_by.
class CoroutineList {
 public:
  [[nodiscard]] bool empty() const { return head_ == nullptr; }
  void push_back(Coroutine::Private* co);
  Coroutine::Private* pop_front();
  /// Puts the first one behind the last.
  void rotate() { push_back(pop_front()); }
  /// Moves all of `other` behind the own ones.
  void append(CoroutineList& other);

 private:
  Coroutine::Private* head_ = nullptr;
  Coroutine::Private* tail_ = nullptr;
};

/// A coroutine. It lies at the top of its own stack and dies with it.
struct Coroutine::Private : Coroutine {
  explicit Private(Stack* own_stack) : unguarded(!own_stack->guarded), stack(own_stack) {}

  using Coroutine::fiber_;
  using Coroutine::State;
  using Coroutine::state_;

  const bool unguarded;  ///< the stack has a canary instead of a guard

  /// Who put it on a list of coroutines to be entered; null when it is on none.
  std::atomic<const char*> scheduled_by{nullptr};
  /// Who entered it, while it is entered; null for code outside of coroutines.
  Coroutine* caller = nullptr;
  std::atomic<AioContext*> context{nullptr};
  /// Coroutines that it woke: they run when it yields or ends.
  CoroutineList woken;

  std::atomic<Private*> next{nullptr};  ///< in the list that `scheduled_by` speaks of
  EntryFunction entry = nullptr;
  void* argument = nullptr;
  const char* name = nullptr;
  void* inherited = nullptr;
  Stack* stack;

  static Private& of(Coroutine* co) { return static_cast<Private&>(*co); }
  static const Private& of(const Coroutine* co) { return static_cast<const Private&>(*co); }

  /// Claims the coroutine for a list, or aborts naming this and the earlier claim.
  void claim_for_schedule();
};

inline Coroutine::Private& Coroutine::priv() { return static_cast<Private&>(*this); }

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
