// Sleeping until a word changes: the Linux system call, with a timeout and callable from signal handlers, both of which
// std::atomic::wait() lacks.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <ctime>

namespace coimg {

/// Sleeps while `word` is `expected`: until futex_wake(), a signal, or the end of `timeout_ns` (-1: for ever).
inline void futex_wait(std::atomic<uint32_t>& word, uint32_t expected, int64_t timeout_ns) {
  const timespec timeout = {timeout_ns / 1'000'000'000, timeout_ns % 1'000'000'000};
  ::syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, timeout_ns < 0 ? nullptr : &timeout, nullptr, 0);
}

/// Wakes a thread that sleeps in futex_wait(). Leaves errno as it was.
inline void futex_wake(std::atomic<uint32_t>& word) {
  const int saved_errno = errno;
  ::syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  errno = saved_errno;
}

}  // namespace coimg
