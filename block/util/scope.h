// on_scope_exit: a cleanup that runs when its scope ends.
#pragma once

#include <utility>

namespace coimg {

template <typename Action>
class [[nodiscard]] ScopeExit {
 public:
  explicit ScopeExit(Action action) : action_(std::move(action)) {}
  ~ScopeExit() {
    if (armed_) action_();
  }
  ScopeExit(const ScopeExit&) = delete;
  ScopeExit& operator=(const ScopeExit&) = delete;
  void dismiss() { armed_ = false; }

 private:
  Action action_;
  bool armed_ = true;
};

/// `auto undo = on_scope_exit([&] { ... });` Dismiss it when there is nothing to undo any more.
template <typename Action>
ScopeExit<Action> on_scope_exit(Action action) {
  return ScopeExit<Action>(std::move(action));
}

}  // namespace coimg
