// The coroutine I/O calls: argument checks that both engines share, and the choice of the engine.
#include "coroutine/io.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <string_view>

#include "coroutine/aio_context.h"
#include "coroutine/io_engine.h"
#include "coroutine/worker_pool.h"

namespace coimg {

namespace {

/// The system calls take signed offsets, and io_uring takes offset -1 for "the file position".
bool is_valid_offset(uint64_t offset) { return offset <= static_cast<uint64_t>(std::numeric_limits<off_t>::max()); }

IoEngine& current_engine() { return AioContext::current().io_engine(); }

/// The engine to try first. io_uring is also the default: see the measurements in io_engine_uring.cc.
IoEngineKind preferred_engine() {
  const char* const value = std::getenv("COIMG_AIO");  // NOLINT(concurrency-mt-unsafe): nobody sets variables
  const std::string_view name = value == nullptr ? "" : value;
  if (name == io_engine_name(IoEngineKind::kThreads)) return IoEngineKind::kThreads;
  if (name.empty() || name == io_engine_name(IoEngineKind::kIoUring)) return IoEngineKind::kIoUring;
  static std::once_flag warned;
  std::call_once(warned, [value] {
    std::fprintf(stderr, "coimg: warning: COIMG_AIO is '%s', expected 'io_uring' or 'threads'; using the default\n",
                 value);
  });
  return IoEngineKind::kIoUring;
}

}  // namespace

std::unique_ptr<IoEngine> make_io_engine(AioContext& context) {
  if (preferred_engine() == IoEngineKind::kIoUring) {
    if (auto engine = make_uring_io_engine(context)) return engine;
  }
  return make_thread_io_engine();
}

IoEngineKind io_engine_kind() { return current_engine().kind(); }

const char* io_engine_name(IoEngineKind kind) { return kind == IoEngineKind::kIoUring ? "io_uring" : "threads"; }

int64_t co_preadv(int fd, std::span<const iovec> iov, uint64_t offset) {
  if (!is_valid_offset(offset)) return -EINVAL;
  return current_engine().preadv(fd, iov, offset);
}

int64_t co_pwritev(int fd, std::span<const iovec> iov, uint64_t offset, WorkerStrand* strand) {
  if (!is_valid_offset(offset)) return -EINVAL;
  return current_engine().pwritev(fd, iov, offset, strand);
}

int co_fsync(int fd) { return current_engine().fsync(fd, false); }

int co_fdatasync(int fd) { return current_engine().fsync(fd, true); }

int co_fallocate(int fd, int mode, uint64_t offset, uint64_t bytes) {
  if (!is_valid_offset(offset) || !is_valid_offset(bytes)) return -EINVAL;
  return current_engine().fallocate(fd, mode, offset, bytes);
}

int co_ftruncate(int fd, uint64_t length) {
  if (!is_valid_offset(length)) return -EINVAL;
  return co_run_on_worker([=] {
    int result = 0;
    do {
      result = ::ftruncate(fd, static_cast<off_t>(length));
    } while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : 0;
  });
}

}  // namespace coimg
