#include "block/protocol/host_file_holes.h"

#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>

#include "coroutine/worker_pool.h"

namespace coimg {

namespace {

/// What the file system says about `offset`, or nothing when it cannot tell. Blocks.
///
/// The file may change under the two calls, and file systems differ in what they report at the end, so only answers
/// that lie behind `offset` are believed.
std::optional<FileExtent> query(int fd, uint64_t offset, uint64_t length) {
  const auto start = static_cast<off_t>(offset);
  errno = 0;  // an answer that is not believed is no error
  const off_t data = lseek(fd, start, SEEK_DATA);
  if (data > start) return FileExtent{offset, std::min(static_cast<uint64_t>(data), length), false};
  if (data < 0) {
    if (errno != ENXIO) return std::nullopt;
    return FileExtent{offset, length, false};  // nothing but a hole up to the end
  }
  if (data < start) return std::nullopt;
  const off_t hole = lseek(fd, start, SEEK_HOLE);
  if (hole <= start) return std::nullopt;
  return FileExtent{offset, std::min(static_cast<uint64_t>(hole), length), true};
}

}  // namespace

FileExtent HoleMap::find(int fd, uint64_t offset, uint64_t length) {
  assert(offset < length);
  if (cached_ && cached_->begin <= offset && offset < cached_->end && cached_->end <= length) {
    return {offset, cached_->end, cached_->data};
  }
  if (unsupported_) return {offset, length, true};

  const uint64_t generation = generation_;
  int error = 0;
  const auto found = co_run_on_worker([&] {
    auto extent = query(fd, offset, length);
    if (!extent) error = errno;
    return extent;
  });
  if (!found) {
    unsupported_ = error == EINVAL || error == EOPNOTSUPP || error == ENOSYS || error == ESPIPE;
    return {offset, length, true};
  }
  if (generation == generation_) cached_ = *found;
  return *found;
}

}  // namespace coimg
