// How the main loop shares the big lock. Internal to the runtime; users see big_lock.h.
#pragma once

namespace coimg {

/// Gives the big lock up while a loop waits for events: always when it may sleep, else when somebody waits for it.
class [[nodiscard]] MainLoopLockPause {
 public:
  MainLoopLockPause(bool holds_lock, bool may_sleep);
  ~MainLoopLockPause();
  MainLoopLockPause(const MainLoopLockPause&) = delete;
  MainLoopLockPause& operator=(const MainLoopLockPause&) = delete;

 private:
  const bool paused_;
};

}  // namespace coimg
