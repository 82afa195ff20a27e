// The I/O engine that makes blocking system calls on worker threads.
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <functional>
#include <memory>

#include "coroutine/io_engine.h"
#include "coroutine/worker_pool.h"

namespace coimg {

namespace {

/// Pause before a call that said EAGAIN is made again. Files do not say so; a non-blocking device might.
constexpr int kAgainPauseMs = 1;

/// Runs a system call on a worker until it is neither interrupted nor put off; returns its result or -errno.
template <typename Call>
int64_t call_on_worker(Call call, WorkerStrand* strand = nullptr) coroutine_fn;

template <typename Call>
int64_t call_on_worker(Call call, WorkerStrand* strand) {
  int64_t result = 0;
  const auto job = [&] {
    for (;;) {
      result = call();
      if (result >= 0) return;
      result = -errno;
      if (result == -EAGAIN) poll(nullptr, 0, kAgainPauseMs);
      if (result != -EINTR && result != -EAGAIN) return;
    }
  };
  WorkerPool::instance().run(std::cref(job), strand);
  return result;
}

/// What one call takes. Giving it more would fail, taking less is only a short transfer.
int vector_count(std::span<const iovec> iov) { return static_cast<int>(std::min<size_t>(iov.size(), IOV_MAX)); }

class ThreadIoEngine final : public IoEngine {
 public:
  IoEngineKind kind() const override { return IoEngineKind::kThreads; }

  int64_t preadv(int fd, std::span<const iovec> iov, uint64_t offset) coroutine_fn override {
    return call_on_worker([=] { return ::preadv(fd, iov.data(), vector_count(iov), static_cast<off_t>(offset)); });
  }

  int64_t pwritev(int fd, std::span<const iovec> iov, uint64_t offset, WorkerStrand* strand) coroutine_fn override {
    return call_on_worker([=] { return ::pwritev(fd, iov.data(), vector_count(iov), static_cast<off_t>(offset)); },
                          strand);
  }

  int fsync(int fd, bool data_only) coroutine_fn override {
    return static_cast<int>(call_on_worker([=] { return data_only ? ::fdatasync(fd) : ::fsync(fd); }));
  }

  int fallocate(int fd, int mode, uint64_t offset, uint64_t bytes) coroutine_fn override {
    return static_cast<int>(
        call_on_worker([=] { return ::fallocate(fd, mode, static_cast<off_t>(offset), static_cast<off_t>(bytes)); }));
  }
};

}  // namespace

std::unique_ptr<IoEngine> make_thread_io_engine() { return std::make_unique<ThreadIoEngine>(); }

}  // namespace coimg
