// NewFiles: host files that are being made, and get their names when they are complete.
//
// A file is written without a name (O_TMPFILE), or under a temporary one where the file system has no such files, and
// is then linked into its place, or renamed over the file that is there. So whoever looks at the name, after a crash
// too, finds what was there before or all of the new file.
//
// Some files cannot be replaced by another one: devices; files with more names (hard links), whose other names would
// keep the old content; mount points; names of open files (/dev/stdout); files in directories, or of owners, that we
// cannot give to a new file. These are written in place.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "block/protocol/file_locks.h"
#include "block/protocol/file_place.h"
#include "block/util/result.h"
#include "block/util/unique_fd.h"
#include "coroutine/annotations.h"

namespace coimg {

/// The files that one command makes. Until publish() they are reached through find() alone: those who open images get
/// the object in their OpenFlags.
class NewFiles {
 public:
  enum class Naming { kWhenComplete, kTemporary };

  /// kTemporary: as on file systems without O_TMPFILE.
  explicit NewFiles(Naming naming = Naming::kWhenComplete) : naming_(naming) {}
  ~NewFiles() { discard(); }
  NewFiles(const NewFiles&) = delete;
  NewFiles& operator=(const NewFiles&) = delete;

  /// Begins the file that `path` is to lead to, and returns it: empty, unless it is a device, and open until
  /// publish() or discard(). A file that is there keeps its content, and is kept from others by the locks of an image
  /// that is written; where it has to be written in place it is emptied. The new file gets its owner and mode.
  /// Blocks. Errors: those of open(); EINVAL for what can hold no image; EAGAIN when others use the file.
  Result<int> begin(const std::string& path);

  /// The path under which the file that `path` is going to lead to can be opened now; nothing when it is none of
  /// these files. Blocks.
  [[nodiscard]] std::optional<std::string> find(const std::string& path) const;

  /// Puts the files in their places, the last one that was begun first: an image is begun before the file that its
  /// data lie in, and never is there without it. With `durable` the files and their names are on the disk before it
  /// returns. Errors: as of fsync() and link(); EEXIST when somebody else has put a file there. Nothing new stays.
  /// Crash: each name has its old file, or all of the new one when `durable`; without, the power must stay.
  Result<void> publish(bool durable) coroutine_fn;

  /// Lets go of all files that are not published. Those that were written in place are removed if they are new, else
  /// emptied: an image that is not complete must not be mistaken for one that is. Best effort, from anywhere.
  void discard();

 private:
  enum class State { kNew, kEmptied, kReplacing, kKept };

  struct File {
    std::string path;  ///< as given
    State state = State::kNew;
    FilePlace place = {};        ///< unset for files that are written in place
    UniqueFd fd = {};            ///< the new file, or the one written in place
    std::string temporary = {};  ///< its name in the place's directory; empty: it has none
    uint64_t old_device = 0, old_inode = 0;
    UniqueFd old_fd = {};  ///< the one to be replaced, locked
    FileLocks old_locks = {};
    bool published = false;

    [[nodiscard]] bool in_place() const { return !place.directory.valid(); }
  };

  Result<void> begin_over(File& file);
  Result<void> begin_in_place(File& file);
  bool make_unnamed(File& file, unsigned mode) const;
  Result<void> put_in_place(File& file);
  void withdraw(File& file);
  Result<void> publish_all(bool durable);
  Result<void> sync_all() const;

  const Naming naming_;
  mutable std::mutex lock_;  ///< files_, which a signal may end while a worker thread begins one
  std::vector<File> files_;
  bool publishing_ = false;  ///< a worker thread has the files
};

}  // namespace coimg
