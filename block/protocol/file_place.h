// FilePlace: where a path leads to, as a directory and a name in it, whether or not there is a file yet.
#pragma once

#include <optional>
#include <string>

#include "block/util/unique_fd.h"

namespace coimg {

/// A name in a directory. The directory stays the one it was, wherever it is moved to meanwhile.
struct FilePlace {
  UniqueFd directory;  ///< O_PATH: for the ...at() calls only
  std::string name;    ///< no symbolic link when it was looked at

  [[nodiscard]] bool is(const FilePlace& other) const;
};

/// Follows symbolic links, also dangling ones, as open() with O_CREAT does. Nothing where no file can be put into a
/// place by renaming one over it: names of open files (/dev/stdout, /proc/self/fd/3), directories that cannot be
/// entered, and links that the kernel does not follow for everybody. Blocks.
std::optional<FilePlace> find_file_place(const std::string& path);

}  // namespace coimg
