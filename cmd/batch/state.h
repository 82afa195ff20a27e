// What a batch remembers from one run to the next: which jobs were done, and how their output files looked then.
//
// The file has one JSON object a line and only ever grows while jobs run, so that a crash loses the last line at most.
// A line says that a job was done, with the command that it ran, or that it failed, and how the files that it had to
// do with looked afterwards. What the last line with a file says of it counts, for all jobs: when a later job of the
// batch changes the output of an earlier one, that is no reason to run the earlier one again; when somebody else does,
// or a later job fails half-way, it is.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "block/util/result.h"
#include "block/util/unique_fd.h"

namespace coimg {

/// How a file looks from outside; another one after it was replaced or written to.
struct FileStamp {
  uint64_t device = 0, inode = 0, size = 0;
  int64_t mtime_ns = 0;
  bool exists = false;

  static FileStamp of(const std::string& path);
  bool operator==(const FileStamp&) const = default;
};

class BatchState {
 public:
  /// Without a file: remembers nothing.
  BatchState() = default;

  /// Opens the file for what comes, and with `resume` reads what it has; else empties it. Errors: the host's, and EBUSY
  /// when another batch uses it. A last line that was cut off is left out.
  Result<void> open(const std::string& path, bool resume);

  /// Whether the job was done with this command, and its files are as they were left.
  [[nodiscard]] bool is_done(const std::string& id, const std::vector<std::string>& command,
                             const std::vector<std::string>& outputs) const;

  /// Appends a line. Errors: the host's.
  Result<void> record(const std::string& id, const std::vector<std::string>& command,
                      const std::set<std::string>& outputs, bool done);

 private:
  struct Entry {
    std::vector<std::string> command;
    std::vector<std::string> outputs;
  };
  void take_line(std::string_view line);

  UniqueFd fd_;
  std::map<std::string, Entry> done_;
  std::map<std::string, FileStamp> files_;
};

}  // namespace coimg
