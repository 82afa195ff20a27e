#include "coroutine/fd_handlers.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <ctime>
#include <utility>

#include "coroutine/fatal.h"

namespace coimg {
namespace {

constexpr uint32_t kReadableEvents = EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR;
constexpr uint32_t kWritableEvents = EPOLLOUT | EPOLLHUP | EPOLLERR;

uint64_t pack(uint32_t generation, int fd) { return (uint64_t{generation} << 32) | static_cast<uint32_t>(fd); }

/// epoll with nanoseconds where the kernel has it; before Linux 5.11, and where a sandbox forbids it, milliseconds.
int epoll_wait_ns(int epoll_fd, epoll_event* events, int max_events, int64_t timeout_ns) {
  static bool no_pwait2 = false;  // a race only costs another attempt
  if (timeout_ns > 0 && !__atomic_load_n(&no_pwait2, __ATOMIC_RELAXED)) {
    const timespec timeout = {timeout_ns / 1'000'000'000, timeout_ns % 1'000'000'000};
    const int count = ::epoll_pwait2(epoll_fd, events, max_events, &timeout, nullptr);
    if (count >= 0 || (errno != ENOSYS && errno != EPERM)) return count;
    __atomic_store_n(&no_pwait2, true, __ATOMIC_RELAXED);
  }
  // Rounded up: waking early would spin until the deadline.
  const int64_t ms =
      timeout_ns < 0 ? -1 : std::min<int64_t>(timeout_ns / 1'000'000 + (timeout_ns % 1'000'000 != 0), INT_MAX);
  return ::epoll_wait(epoll_fd, events, max_events, static_cast<int>(ms));
}

}  // namespace

FdHandlers::FdHandlers(int wakeup_fd) : epoll_fd_(::epoll_create1(EPOLL_CLOEXEC)) {
  epoll_event event = {};
  event.events = EPOLLIN | EPOLLET;
  event.data.u64 = pack(0, wakeup_fd);
  if (epoll_fd_ < 0 || ::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, wakeup_fd, &event) != 0) {
    fatal("cannot create an event loop: %s", std::strerror(errno));
  }
}

FdHandlers::~FdHandlers() { ::close(epoll_fd_); }

FdHandlers::SharedCallback FdHandlers::share(Callback callback) {
  return callback ? std::make_shared<const Callback>(std::move(callback)) : nullptr;
}

void FdHandlers::set(int fd, Callback on_readable, Callback on_writable) {
  replace(fd, share(std::move(on_readable)), share(std::move(on_writable)));
}

void FdHandlers::add_readable(int fd, Callback callback) {
  const auto found = entries_.find(fd);
  if (found != entries_.end() && found->second.readable != nullptr) {
    fatal("fd %d already has a handler for reading", fd);
  }
  replace(fd, share(std::move(callback)), found != entries_.end() ? found->second.writable : nullptr);
}

void FdHandlers::add_writable(int fd, Callback callback) {
  const auto found = entries_.find(fd);
  if (found != entries_.end() && found->second.writable != nullptr) {
    fatal("fd %d already has a handler for writing", fd);
  }
  replace(fd, found != entries_.end() ? found->second.readable : nullptr, share(std::move(callback)));
}

void FdHandlers::remove_readable(int fd) {
  const auto found = entries_.find(fd);
  if (found != entries_.end()) replace(fd, nullptr, found->second.writable);
}

void FdHandlers::remove_writable(int fd) {
  const auto found = entries_.find(fd);
  if (found != entries_.end()) replace(fd, found->second.readable, nullptr);
}

void FdHandlers::replace(int fd, SharedCallback readable, SharedCallback writable) {
  if (readable == nullptr && writable == nullptr) return remove(fd);

  const auto [position, is_new] = entries_.try_emplace(fd);
  Entry& entry = position->second;
  if (is_new) {
    entry.generation = next_generation_++;
    if (next_generation_ == 0) next_generation_ = 1;
  }
  const bool same_events = !is_new && (entry.readable == nullptr) == (readable == nullptr) &&
                           (entry.writable == nullptr) == (writable == nullptr);
  entry.readable = std::move(readable);
  entry.writable = std::move(writable);
  if (same_events || entry.always_ready) return;

  epoll_event event = {};
  event.events = (entry.readable != nullptr ? uint32_t{EPOLLIN | EPOLLRDHUP} : 0) |
                 (entry.writable != nullptr ? uint32_t{EPOLLOUT} : 0);
  event.data.u64 = pack(entry.generation, fd);
  int result = ::epoll_ctl(epoll_fd_, is_new ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event);
  if (result != 0 && errno == ENOENT) {  // the fd was closed and its number is in use again
    result = ::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event);
  }
  if (result == 0) return;
  if (errno != EPERM) fatal("cannot wait for fd %d: %s", fd, std::strerror(errno));
  entry.always_ready = true;
  always_ready_.push_back(fd);
}

void FdHandlers::remove(int fd) {
  const auto found = entries_.find(fd);
  if (found == entries_.end()) return;
  if (found->second.always_ready) {
    std::erase(always_ready_, fd);
  } else {
    ::epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr);  // fails for a closed fd, which the kernel has removed itself
  }
  entries_.erase(found);
}

void FdHandlers::wait(Ready& ready, int64_t timeout_ns) {
  ready.wait_number = ++waits_;
  ready.count = epoll_wait_ns(epoll_fd_, ready.events, Ready::kMaxEvents, timeout_ns);
  if (ready.count < 0) {
    if (errno != EINTR) fatal("waiting for events failed: %s", std::strerror(errno));
    ready.count = 0;
  }
}

bool FdHandlers::call(int fd, uint32_t generation, SharedCallback Entry::* direction) {
  const auto found = entries_.find(fd);
  if (found == entries_.end() || found->second.generation != generation) return false;
  const SharedCallback callback = found->second.*direction;
  if (callback == nullptr) return false;
  (*callback)();
  return true;
}

bool FdHandlers::dispatch(const Ready& ready) {
  bool called = false;
  for (int i = 0; i < ready.count; ++i) {
    // A nested loop has waited since, and may have consumed these events. What is still true will be reported again.
    if (ready.wait_number != waits_) return called;
    const auto fd = static_cast<int>(static_cast<uint32_t>(ready.events[i].data.u64));
    const auto generation = static_cast<uint32_t>(ready.events[i].data.u64 >> 32);
    const uint32_t events = ready.events[i].events;
    if ((events & kReadableEvents) != 0) called |= call(fd, generation, &Entry::readable);
    if ((events & kWritableEvents) != 0) called |= call(fd, generation, &Entry::writable);
  }
  if (always_ready_.empty()) return called;
  const std::vector<int> fds = always_ready_;  // handlers may change it
  for (const int fd : fds) {
    const auto found = entries_.find(fd);
    if (found == entries_.end()) continue;
    const uint32_t generation = found->second.generation;
    called |= call(fd, generation, &Entry::readable);
    called |= call(fd, generation, &Entry::writable);
  }
  return called;
}

}  // namespace coimg
