// The set of bytes is fixed: every program that takes part in the protocol knows it.
#include "block/protocol/file_locks.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include <fmt/format.h>

#include "block/util/scope.h"

namespace coimg {

namespace {

constexpr unsigned kPermissionCount = 4;
constexpr off_t kUsedBase = 100;      ///< byte 100 + i: permission i is used
constexpr off_t kUnsharedBase = 200;  ///< byte 200 + i: permission i is not shared

constexpr const char* kPermissionNames[kPermissionCount] = {"consistent read", "write", "write unchanged", "resize"};

struct flock one_byte(short type, off_t byte) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;
}

Result<void> set_lock(int fd, short type, off_t byte) {
  struct flock lock = one_byte(type, byte);
  if (fcntl(fd, F_OFD_SETLK, &lock) == 0) return {};
  return Error::from_errno(errno, fmt::format("Failed to lock byte {}", byte));
}

/// True when another open file description has a lock on the byte.
Result<bool> is_taken(int fd, off_t byte) {
  struct flock lock = one_byte(F_WRLCK, byte);
  if (fcntl(fd, F_OFD_GETLK, &lock) != 0) {
    return Error::from_errno(errno, fmt::format("Failed to query lock byte {}", byte));
  }
  return lock.l_type != F_UNLCK;
}

constexpr unsigned bit(unsigned permission) { return 1U << permission; }
unsigned unshared(const Permissions& permissions) { return ~permissions.shared & kPermAll; }

/// Locks the bytes of the set bits.
Result<void> lock_bytes(int fd, unsigned bits, off_t base) {
  for (unsigned i = 0; i < kPermissionCount; ++i) {
    if (bits & bit(i)) COIMG_TRY(set_lock(fd, F_RDLCK, base + i));
  }
  return {};
}

void unlock_bytes(int fd, unsigned bits, off_t base) {
  for (unsigned i = 0; i < kPermissionCount; ++i) {
    // Releasing a lock can fail only where taking it would have; then closing the file is what releases it.
    if (bits & bit(i)) (void)set_lock(fd, F_UNLCK, base + i).ok();
  }
}

Error conflict(const char* what, unsigned permission, std::string_view filename) {
  return Error(EAGAIN, fmt::format("Failed to get {}\"{}\" lock", what, kPermissionNames[permission]))
      .with_hint(fmt::format("Is another process using the image [{}]?\n", filename));
}

/// Looks for others whose claims exclude ours.
Result<void> test_bytes(int fd, const Permissions& wanted, std::string_view filename) {
  for (unsigned i = 0; i < kPermissionCount; ++i) {
    if ((wanted.used & bit(i)) && COIMG_TRY(is_taken(fd, kUnsharedBase + i))) return conflict("", i, filename);
  }
  for (unsigned i = 0; i < kPermissionCount; ++i) {
    if ((unshared(wanted) & bit(i)) && COIMG_TRY(is_taken(fd, kUsedBase + i))) return conflict("shared ", i, filename);
  }
  return {};
}

}  // namespace

bool ofd_locks_available() {
  static const bool available = [] {
    const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    struct flock lock = one_byte(F_WRLCK, 0);
    const bool works = fcntl(fd, F_OFD_GETLK, &lock) == 0;
    close(fd);
    return works;
  }();
  return available;
}

Result<void> FileLocks::change(int fd, const Permissions& wanted, std::string_view filename) {
  const unsigned new_used = wanted.used & ~held_.used;
  const unsigned new_unshared = unshared(wanted) & ~unshared(held_);
  auto undo = on_scope_exit([&] {
    unlock_bytes(fd, new_used, kUsedBase);
    unlock_bytes(fd, new_unshared, kUnsharedBase);
  });
  COIMG_TRY(lock_bytes(fd, new_used, kUsedBase));
  COIMG_TRY(lock_bytes(fd, new_unshared, kUnsharedBase));
  COIMG_TRY(test_bytes(fd, wanted, filename));
  undo.dismiss();

  unlock_bytes(fd, held_.used & ~wanted.used, kUsedBase);
  unlock_bytes(fd, unshared(held_) & ~unshared(wanted), kUnsharedBase);
  held_ = wanted;
  return {};
}

}  // namespace coimg
