// PushList: many threads put things in, one takes them all out.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstdint>

namespace coimg {

/// A list of nodes with a member `std::atomic<Node*> next`.
///
/// push() is one exchange and one store whatever other threads do, so it is wait-free and safe in signal handlers: a
/// handler that interrupts a push adds its node in front of it. take_all() is for the one thread that consumes; it may
/// have to wait for a thread between those two instructions.
template <typename Node>
class PushList {
 public:
  void push(Node* node) {
    node->next.store(unlinked(), std::memory_order_relaxed);
    Node* below = head_.exchange(node);
    node->next.store(below, std::memory_order_release);
  }

  [[nodiscard]] bool empty() const { return head_.load() == nullptr; }

  /// Empties the list and calls `take(node)` for each, in the order of push(). `take` may push the node again.
  template <typename Take>
  void take_all(Take take) {
    Node* newest = head_.exchange(nullptr);
    Node* oldest = nullptr;
    while (newest != nullptr) {  // reverse
      Node* below = linked_next(newest);
      newest->next.store(oldest, std::memory_order_relaxed);
      oldest = newest;
      newest = below;
    }
    while (oldest != nullptr) {
      Node* node = oldest;
      oldest = node->next.load(std::memory_order_relaxed);
      take(node);
    }
  }

 private:
  /// Marks a node whose pusher has not come to the second instruction.
  static Node* unlinked() { return reinterpret_cast<Node*>(uintptr_t{1}); }

  static Node* linked_next(Node* node) {
    Node* next = node->next.load(std::memory_order_acquire);
    while (next == unlinked()) {
      ::sched_yield();
      next = node->next.load(std::memory_order_acquire);
    }
    return next;
  }

  std::atomic<Node*> head_{nullptr};
};

}  // namespace coimg
