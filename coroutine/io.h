// File I/O for coroutines, on io_uring or on worker threads.
//
// The engine is chosen once per thread: io_uring when the kernel allows it, else worker threads. The environment
// variable COIMG_AIO=io_uring|threads asks for one; io_uring falls back to threads where the kernel refuses it. All
// calls return what the system call would, with -errno for errors, and never block the thread.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstdint>
#include <span>

#include "coroutine/annotations.h"

namespace coimg {

class WorkerStrand;

/// Bytes transferred (short at end of file or as the kernel likes), or -errno. EINTR and EAGAIN are retried inside.
int64_t co_preadv(int fd, std::span<const iovec> iov, uint64_t offset) coroutine_fn;
/// `strand`: what runs on workers runs one at a time. For files of which the kernel lets one writer at a time in.
int64_t co_pwritev(int fd, std::span<const iovec> iov, uint64_t offset, WorkerStrand* strand = nullptr) coroutine_fn;
/// 0 or -errno.
int co_fsync(int fd) coroutine_fn;
int co_fdatasync(int fd) coroutine_fn;
int co_fallocate(int fd, int mode, uint64_t offset, uint64_t bytes) coroutine_fn;
int co_ftruncate(int fd, uint64_t length) coroutine_fn;

enum class IoEngineKind { kThreads, kIoUring };

/// What the calling thread's engine is.
IoEngineKind io_engine_kind();
const char* io_engine_name(IoEngineKind kind);

/// The interface behind the calls above. One object a thread, owned by its AioContext.
class IoEngine {
 public:
  virtual ~IoEngine() = default;
  virtual IoEngineKind kind() const = 0;
  virtual int64_t preadv(int fd, std::span<const iovec> iov, uint64_t offset) coroutine_fn = 0;
  virtual int64_t pwritev(int fd, std::span<const iovec> iov, uint64_t offset, WorkerStrand* strand) coroutine_fn = 0;
  virtual int fsync(int fd, bool data_only) coroutine_fn = 0;
  virtual int fallocate(int fd, int mode, uint64_t offset, uint64_t bytes) coroutine_fn = 0;
};

}  // namespace coimg
