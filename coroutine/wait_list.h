// WaitList: who waits for something, in order. Internal to the runtime.
#pragma once

namespace coimg {

/// A list of nodes with members `Node* previous` and `Node* next`. The nodes live on the stacks of those who wait.
template <typename Node>
class WaitList {
 public:
  [[nodiscard]] bool empty() const { return head_ == nullptr; }
  [[nodiscard]] Node* front() const { return head_; }

  void push_back(Node& node) {
    node.previous = tail_;
    node.next = nullptr;
    (tail_ != nullptr ? tail_->next : head_) = &node;
    tail_ = &node;
  }

  void push_front(Node& node) {
    node.previous = nullptr;
    node.next = head_;
    (head_ != nullptr ? head_->previous : tail_) = &node;
    head_ = &node;
  }

  void remove(Node& node) {
    (node.previous != nullptr ? node.previous->next : head_) = node.next;
    (node.next != nullptr ? node.next->previous : tail_) = node.previous;
  }

  /// Null when nobody waits.
  Node* pop_front() {
    Node* const node = head_;
    if (node != nullptr) remove(*node);
    return node;
  }

 private:
  Node* head_ = nullptr;
  Node* tail_ = nullptr;
};

}  // namespace coimg
