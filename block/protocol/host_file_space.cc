// HostFile: what the file occupies. Zeroing, discarding, and changing the length.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>

#include <fmt/format.h>

#include "block/protocol/host_file_driver.h"
#include "block/util/buffer.h"
#include "block/util/math.h"
#include "block/util/scope.h"
#include "coroutine/io.h"
#include "coroutine/worker_pool.h"

namespace coimg {

namespace {

constexpr uint64_t kZeroBufferBytes = kMiB;
constexpr int kPunchHole = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
constexpr uint64_t kLargestBlock = 64 * kKiB;  ///< of a file system

/// The ways in which file systems and devices say that they do not have an operation.
bool is_missing_operation(int error) {
  return error == EOPNOTSUPP || error == ENOSYS || error == ENOTTY || error == ENODEV;
}

}  // namespace

Result<bool> HostFile::try_fallocate(int mode, uint64_t offset, uint64_t bytes, bool& works) {
  if (!works) return false;
  const int result = co_fallocate(fd_.get(), mode, offset, bytes);
  if (result == 0) return true;
  if (is_missing_operation(-result)) {
    works = false;
    return false;
  }
  if (result == -EINVAL) return false;  // not for this range, for instance off the device's sectors
  return Error::from_errno(-result);
}

Result<bool> HostFile::punch(uint64_t offset, uint64_t bytes) {
  const uint64_t end = offset + bytes;
  if (is_regular() && end == length_ && !is_aligned(end, kLargestBlock)) {
    // Only a hole that goes on to the end of the file's last block frees it. Nothing may be growing the file into that.
    const CoWriteGuard exclusive(growth_lock_);
    if (end == length_) return try_fallocate(kPunchHole, offset, align_up(end, kLargestBlock) - offset, can_punch_);
  }
  return try_fallocate(kPunchHole, offset, bytes, can_punch_);
}

Result<void> HostFile::zero_range(uint64_t offset, uint64_t bytes, bool may_unmap) {
  // A device has a size that nothing may try to change.
  const int zero = FALLOC_FL_ZERO_RANGE | (is_regular() ? 0 : FALLOC_FL_KEEP_SIZE);

  if (may_unmap && COIMG_TRY(punch(offset, bytes))) return {};
  if (COIMG_TRY(try_fallocate(zero, offset, bytes, can_zero_range_))) return {};
  if (is_regular() && can_allocate_ && COIMG_TRY(try_fallocate(kPunchHole, offset, bytes, can_punch_))) {
    // What it holds are zeros now; its space is given back to it, as it may not be lost.
    if (may_unmap || COIMG_TRY(try_fallocate(0, offset, bytes, can_allocate_))) return {};
  }
  return Error::from_errno(ENOTSUP);
}

Result<void> HostFile::extend_sparse(uint64_t new_length) {
  const CoWriteGuard exclusive(growth_lock_);
  if (new_length <= length_) return {};
  return set_file_length(new_length);
}

Result<void> HostFile::pwrite_zeroes(uint64_t offset, uint64_t bytes, const ZeroOptions& options) {
  const auto counted = on_scope_exit([&] { holes_.invalidate(); });
  const uint64_t end = offset + bytes;
  if (!is_regular() || end <= length_) return zero_range(offset, bytes, options.may_unmap);

  if (options.may_unmap) {
    if (offset < length_) COIMG_TRY(zero_range(offset, length_ - offset, /*may_unmap=*/true));
    return extend_sparse(end);
  }
  const CoReadGuard growing(growth_lock_);
  COIMG_TRY(zero_range(offset, bytes, /*may_unmap=*/false));
  note_written_up_to(end);
  return {};
}

/// Written without this, each of many small ranges in a large hole has the file system set megabytes aside around it:
/// ext4 has run out of space that way long before the disk was full, and only found out when it wrote back.
Result<void> HostFile::reserve(std::span<const ByteRange> ranges) {
  if (!is_regular() || !can_allocate_) return {};
  const int error = co_run_on_worker([this, ranges] {
    for (const ByteRange& range : ranges) {
      int result = 0;
      do {
        result = ::fallocate(fd_.get(), FALLOC_FL_KEEP_SIZE, static_cast<off_t>(range.offset),
                             static_cast<off_t>(range.bytes));
      } while (result != 0 && errno == EINTR);
      if (result != 0) return errno;
    }
    return 0;
  });
  if (error == ENOSPC || error == EDQUOT) return Error::from_errno(error, "Could not reserve space");
  // Whatever else is wrong here, writing tells it, or works.
  if (is_missing_operation(error)) can_allocate_ = false;
  return {};
}

Result<void> HostFile::pdiscard(uint64_t offset, uint64_t bytes) {
  if (!discard_) return {};
  const auto counted = on_scope_exit([&] { holes_.invalidate(); });
  if (kind_ == HostFileKind::kBlockDevice) {
    uint64_t range[2] = {offset, bytes};
    const int error = co_run_on_worker([&] { return ioctl(fd_.get(), BLKDISCARD, range) == 0 ? 0 : errno; });
    if (error != 0 && error != EINVAL && !is_missing_operation(error)) return Error::from_errno(error);
    return {};
  }
  if (offset >= length_) return {};
  bytes = std::min(bytes, length_ - offset);
  COIMG_TRY(punch(offset, bytes));
  return {};
}

Result<void> HostFile::set_file_length(uint64_t new_length) {
  const int result = new_length < kMaxFileOffset ? co_ftruncate(fd_.get(), new_length) : -EFBIG;
  if (result < 0) return Error::from_errno(-result, "Could not resize file");
  length_ = new_length;
  holes_.invalidate();
  return {};
}

Result<void> HostFile::write_zero_bytes(uint64_t begin, uint64_t end) {
  // The range may start or stop anywhere, so the page cache takes it also from a file that is otherwise open without.
  const int flags = direct_ ? fcntl(fd_.get(), F_GETFL) : 0;
  if (direct_) fcntl(fd_.get(), F_SETFL, flags & ~O_DIRECT);
  const auto restore = on_scope_exit([&] {
    if (direct_) fcntl(fd_.get(), F_SETFL, flags);
  });

  AlignedBuffer zeros = AlignedBuffer::zeroed(std::min(kZeroBufferBytes, end - begin));
  while (begin < end) {
    const iovec piece = {zeros.data(), std::min(zeros.size(), end - begin)};
    const int64_t count = co_pwritev(fd_.get(), std::span(&piece, 1), begin);
    if (count < 0) return Error::from_errno(static_cast<int>(-count));
    if (count == 0) return Error::from_errno(ENOSPC);
    begin += static_cast<uint64_t>(count);
  }
  return {};
}

Result<void> HostFile::preallocate(uint64_t begin, uint64_t end, Preallocation preallocation) {
  if (preallocation == Preallocation::kFalloc) {
    auto done = try_fallocate(0, begin, end - begin, can_allocate_);
    if (!done.ok()) {
      return std::move(done).error().with_context("Could not preallocate data for the new file");
    }
    if (*done) return {};
    // Without the operation, writing is what reserves space.
  }
  COIMG_TRY(write_zero_bytes(begin, end).with_context("Could not write zeros for preallocation"));
  return flush().with_context("Could not flush file to disk");
}

Result<void> HostFile::truncate(uint64_t new_length, Preallocation preallocation) {
  if (!is_regular()) {
    if (preallocation != Preallocation::kOff) {
      return Error(ENOTSUP, "Preallocation is not supported for device files");
    }
    if (new_length > length_) return Error(EINVAL, "Cannot grow device files");
    return {};  // a device may be larger than what is in it
  }
  if (preallocation == Preallocation::kMetadata) {
    return Error(ENOTSUP, "Unsupported preallocation mode: metadata");
  }
  const CoWriteGuard exclusive(growth_lock_);
  const uint64_t old_length = length_;
  if (preallocation != Preallocation::kOff && new_length < old_length) {
    return Error(ENOTSUP, "Preallocation can't be used for shrinking files");
  }
  COIMG_TRY(set_file_length(new_length));
  if (preallocation == Preallocation::kOff || new_length == old_length) return {};

  auto preallocated = preallocate(old_length, new_length, preallocation);
  holes_.invalidate();
  // A file that has its length but not the space that was asked for must not stay.
  if (!preallocated.ok()) (void)set_file_length(old_length).ok();
  return preallocated;
}

}  // namespace coimg
