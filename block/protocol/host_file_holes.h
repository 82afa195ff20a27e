// Where a host file has holes, asked of the file system and remembered one extent at a time.
#pragma once

#include <cstdint>
#include <optional>

#include "coroutine/annotations.h"

namespace coimg {

/// A range of a file that is all data or all hole.
struct FileExtent {
  uint64_t begin = 0, end = 0;
  bool data = true;
};

/// Answers "data or hole?" for a file. A walk through the file costs one pair of system calls an extent, on a worker
/// thread: some file systems write dirty pages back before they answer.
class HoleMap {
 public:
  /// The extent that holds `offset`, from `offset` on, cut at `length`, the length of the file (offset < length). What
  /// the file system does not tell counts as data. Context: coroutine; yields.
  FileExtent find(int fd, uint64_t offset, uint64_t length) coroutine_fn;

  /// To be called when a request that may have changed the layout is done. A query that is under way then does not
  /// leave what it saw behind.
  void invalidate() {
    cached_.reset();
    ++generation_;
  }

 private:
  std::optional<FileExtent> cached_;
  uint64_t generation_ = 0;
  bool unsupported_ = false;  ///< the file system has no SEEK_DATA
};

}  // namespace coimg
