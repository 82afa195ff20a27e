// Locks between processes on image files: the byte-range protocol of QEMU's file driver.
//
// Each permission i has two bytes in the file's lock space (which is not its content): 100 + i is read-locked by who
// uses it, 200 + i by who does not let others use it. All locks are shared ones, so placing them cannot fail for
// being taken; afterwards a query for a write lock tells whether somebody else stands on the opposite byte.
#pragma once

#include <string_view>

#include "block/driver.h"
#include "block/util/result.h"

namespace coimg {

/// Whether the kernel has locks that belong to an open file rather than to the process.
bool ofd_locks_available();

/// The locks that one open file description holds. They go away when its last descriptor is closed.
class FileLocks {
 public:
  /// Exchanges the locks held on `fd` for those that `wanted` needs. Nothing is given up before all that is new is
  /// granted, and on error what was held before is held again.
  ///
  /// `filename` is for the hint. Context: any; the system calls are short but may go to a network file server.
  /// Errors: EAGAIN when somebody else is in the way, else what fcntl said.
  Result<void> change(int fd, const Permissions& wanted, std::string_view filename);
  /// Whether they are what `wanted` needs.
  [[nodiscard]] bool hold(const Permissions& wanted) const { return held_ == wanted; }

 private:
  Permissions held_;
};

}  // namespace coimg
