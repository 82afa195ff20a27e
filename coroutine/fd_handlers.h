// FdHandlers: which callback belongs to which fd, and waiting for them with epoll. A part of AioContext.
#pragma once

#include <sys/epoll.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

namespace coimg {

/// Belongs to one thread. A handler may add and remove handlers and may wait again (a nested loop).
class FdHandlers {
 public:
  using Callback = std::function<void()>;

  /// Each write to the eventfd `wakeup_fd` ends one wait, and nobody needs to read it: that saves a system call.
  explicit FdHandlers(int wakeup_fd);
  ~FdHandlers();
  FdHandlers(const FdHandlers&) = delete;
  FdHandlers& operator=(const FdHandlers&) = delete;

  void set(int fd, Callback on_readable, Callback on_writable);
  /// Adds or removes the handler of one direction and leaves the other one; aborts when there is one already.
  void add_readable(int fd, Callback callback);
  void add_writable(int fd, Callback callback);
  void remove_readable(int fd);
  void remove_writable(int fd);

  /// What one wait found.
  struct Ready {
    static constexpr int kMaxEvents = 64;
    epoll_event events[kMaxEvents];
    int count = 0;
    uint64_t wait_number = 0;
  };

  /// Waits up to `timeout_ns` (-1: for ever). Returns early for signals.
  void wait(Ready& ready, int64_t timeout_ns);

  /// Calls the handlers; returns whether there were any.
  bool dispatch(const Ready& ready);

  /// Whether some handler's fd is always ready, so that waiting is pointless.
  [[nodiscard]] bool any_always_ready() const { return !always_ready_.empty(); }

  /// Whether there is nothing to wait for but the wake-up.
  [[nodiscard]] bool none_waitable() const { return entries_.size() == always_ready_.size(); }

 private:
  using SharedCallback = std::shared_ptr<const Callback>;  ///< shared: it may be removed while it runs
  struct Entry {
    SharedCallback readable;
    SharedCallback writable;
    uint32_t generation = 0;  ///< tells it from an earlier one of the same fd number
    bool always_ready = false;
  };

  static SharedCallback share(Callback callback);
  void replace(int fd, SharedCallback readable, SharedCallback writable);
  void remove(int fd);
  bool call(int fd, uint32_t generation, SharedCallback Entry::* direction);

  int epoll_fd_;
  std::unordered_map<int, Entry> entries_;
  std::vector<int> always_ready_;
  uint32_t next_generation_ = 1;  ///< 0 is the wake-up's
  uint64_t waits_ = 0;
};

}  // namespace coimg
