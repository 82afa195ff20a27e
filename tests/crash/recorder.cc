// Loaded into a program with LD_PRELOAD, writes down each change and flush of the files under COIMG_CRASH_DIRECTORY, in
// the order in which they end, to the file COIMG_CRASH_LOG. tests/crash/recording.h reads it.
#include "tests/crash/recorder.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

namespace {

using coimg::crash::RecordedOp;
using coimg::crash::RecordHeader;

std::mutex log_mutex;
uint64_t next_flush = 0;

template <typename Function>
Function* original(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

int log_fd() {
  static const int fd = open(std::getenv("COIMG_CRASH_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  return fd;
}

/// The file's name within the directory, "." for the directory itself; empty for other files.
const char* name_of(int fd, char (&path)[4096]) {
  char link[64];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return "";
  path[length] = 0;
  const char* const directory = std::getenv("COIMG_CRASH_DIRECTORY");
  const size_t prefix = std::strlen(directory);
  if (std::strcmp(path, directory) == 0) return ".";
  if (std::strncmp(path, directory, prefix) != 0 || path[prefix] != '/') return "";
  return path + prefix + 1;
}

void put(const void* bytes, size_t count) {
  if (write(log_fd(), bytes, count) != static_cast<ssize_t>(count)) std::abort();
}

/// Writes the header and, of a write, the first `header.bytes` bytes of the vector. Called with log_mutex held, so that
/// the log has the order in which changes took effect.
void record_locked(RecordHeader header, const char* name, const iovec* iov = nullptr, int count = 0) {
  header.name_length = static_cast<uint32_t>(std::strlen(name));
  put(&header, sizeof header);
  put(name, header.name_length);
  uint64_t left = header.op == RecordedOp::kWrite ? header.bytes : 0;
  for (int i = 0; i < count && left > 0; ++i) {
    const size_t part = iov[i].iov_len < left ? iov[i].iov_len : left;
    put(iov[i].iov_base, part);
    left -= part;
  }
}

int flush(const char* function, int fd) {
  char path[4096];
  const char* const name = name_of(fd, path);
  auto* const call = original<int(int)>(function);
  if (!*name) return call(fd);
  uint64_t id = 0;
  {
    const std::lock_guard guard(log_mutex);
    id = ++next_flush;
    record_locked({.op = RecordedOp::kFlushBegin, .offset = id}, name);
  }
  const int result = call(fd);
  if (result == 0) {
    const std::lock_guard guard(log_mutex);
    record_locked({.op = RecordedOp::kFlushEnd, .offset = id}, name);
  }
  return result;
}

}  // namespace

extern "C" {

ssize_t pwritev64(int fd, const iovec* iov, int count, off64_t offset) {
  char path[4096];
  const char* const name = name_of(fd, path);
  auto* const call = original<ssize_t(int, const iovec*, int, off64_t)>("pwritev64");
  if (!*name) return call(fd, iov, count, offset);
  const std::lock_guard guard(log_mutex);
  const ssize_t written = call(fd, iov, count, offset);
  if (written > 0) {
    record_locked(
        {.op = RecordedOp::kWrite, .offset = static_cast<uint64_t>(offset), .bytes = static_cast<uint64_t>(written)},
        name, iov, count);
  }
  return written;
}

int ftruncate64(int fd, off64_t length) noexcept {
  char path[4096];
  const char* const name = name_of(fd, path);
  auto* const call = original<int(int, off64_t)>("ftruncate64");
  if (!*name) return call(fd, length);
  const std::lock_guard guard(log_mutex);
  const int result = call(fd, length);
  if (result == 0) record_locked({.op = RecordedOp::kTruncate, .offset = static_cast<uint64_t>(length)}, name);
  return result;
}

int fallocate64(int fd, int mode, off64_t offset, off64_t bytes) {
  char path[4096];
  const char* const name = name_of(fd, path);
  auto* const call = original<int(int, int, off64_t, off64_t)>("fallocate64");
  if (!*name) return call(fd, mode, offset, bytes);
  const std::lock_guard guard(log_mutex);
  const int result = call(fd, mode, offset, bytes);
  if (result == 0) {
    const RecordedOp op = mode & FALLOC_FL_PUNCH_HOLE   ? RecordedOp::kPunch
                          : mode & FALLOC_FL_ZERO_RANGE ? RecordedOp::kZero
                                                        : RecordedOp::kReserve;
    record_locked({.op = op, .offset = static_cast<uint64_t>(offset), .bytes = static_cast<uint64_t>(bytes)}, name);
  }
  return result;
}

int fdatasync(int fd) { return flush("fdatasync", fd); }
int fsync(int fd) { return flush("fsync", fd); }

}  // extern "C"
