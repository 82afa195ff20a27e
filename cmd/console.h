// Console: the one place that writes results to stdout and diagnostics to stderr.
#pragma once

#include <string>
#include <string_view>

#include "block/util/result.h"

namespace coimg {

/// Results go to stdout, all else to stderr. Failed writes to stdout are remembered and reported once, by finish().
class Console {
 public:
  /// `program_name` is the prefix of messages. `name_files`: each says which file it is about and where in it, also
  /// where qemu-img's words do not.
  Console(std::string program_name, bool name_files)
      : program_name_(std::move(program_name)), name_files_(name_files) {}
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  /// Writes to stdout, buffered.
  void out(std::string_view text);
  /// Pushes out what is buffered, for progress.
  void flush_out();

  /// "PROG: TEXT" for each line of the message, then the hint as it is.
  void error(const Error& error);
  /// "PROG: warning: TEXT"
  void warning(std::string_view text);
  /// Complete lines as they are, each with "PROG: FILE: " in front when files are named and there is one.
  void warning_lines(std::string_view file, std::string_view lines);
  /// A line on stderr without prefix.
  void note(std::string_view line);

  /// Everything written has left the process, or why not. Nothing written is always a success.
  Result<void> finish();

 private:
  void write_stderr(const std::string& text);

  [[nodiscard]] std::string describe(const Error& error) const;

  std::string program_name_;
  bool name_files_;
  bool wrote_ = false;
  int write_errnum_ = 0;  ///< of the first write to stdout that failed
};

}  // namespace coimg
