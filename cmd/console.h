// Console: the one place that writes results to stdout and diagnostics to stderr.
#pragma once

#include <string>
#include <string_view>

#include "block/util/result.h"
#include "cmd/paint.h"

namespace coimg {

class JsonValue;

/// Results go to stdout, all else to stderr. Failed writes to stdout are remembered and reported once, by finish().
class Console {
 public:
  /// What is known about whom the output comes from, for diagnostics as JSON.
  struct Source {
    std::string command = {};
    std::string job = {};  ///< of a batch
  };
  /// How diagnostics and progress are written: for people, or one JSON object a line.
  struct Format {
    bool json_log = false;
    bool json_progress = false;
  };
  /// Takes what would go to the streams.
  struct Capture {
    static constexpr size_t kMaxBytes = size_t{4} << 20;  ///< of each; what comes behind is dropped

    std::string out, err;
    bool cut = false;

    void append(std::string& to, std::string_view text);
  };

  /// `program_name` is the prefix of messages. `name_files`: each says which file it is about and where in it, also
  /// where qemu-img's words do not. `paint` is for what goes to stderr.
  Console(std::string program_name, bool name_files, Paint paint)
      : program_name_(std::move(program_name)), name_files_(name_files), paint_(paint) {}
  /// One that speaks as `parent` does, into `capture`, which outlives it; its progress goes to stderr all the same.
  Console(const Console& parent, Source source, Capture& capture)
      : program_name_(parent.program_name_),
        name_files_(parent.name_files_),
        format_(parent.format_),
        source_(std::move(source)),
        capture_(&capture) {}
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  void set_format(Format format) { format_ = format; }
  [[nodiscard]] Format format() const { return format_; }
  void set_command(std::string_view name) { source_.command = name; }

  /// Writes to stdout, buffered.
  void out(std::string_view text);
  /// Pushes out what is buffered, for progress.
  void flush_out();

  /// "PROG: TEXT" for each line of the message, then the hint as it is.
  void error(const Error& error);
  /// "PROG: warning: TEXT"
  void warning(std::string_view text);
  /// Complete lines as they are, each with "PROG: FILE: " in front when files are named and there is one. As JSON they
  /// are one message, without a prefix that says that it is a warning.
  void warning_lines(std::string_view file, std::string_view lines);
  /// A line on stderr without prefix.
  void note(std::string_view line);
  /// A line of what a check has found in a file, the same way.
  void finding(std::string_view file, std::string_view line);
  /// Lines that another console has captured from stderr.
  void pass_on_err(const std::string& lines);

  /// How far the command is, as JSON: `percent` of `total` bytes are done, at `rate` bytes a second.
  void progress(uint64_t done, uint64_t total, double percent, uint64_t rate);

  /// Everything written has left the process, or why not. Nothing written is always a success.
  Result<void> finish();

 private:
  void write_stderr(const std::string& text);
  /// An object with what all lines of JSON have.
  [[nodiscard]] JsonValue start_line(std::string_view type) const;
  void write_message(std::string_view severity, std::string_view message, std::string_view file);

  [[nodiscard]] std::string describe(const Error& error) const;
  /// What messages for people start with.
  [[nodiscard]] std::string prefix(Tint tint) const { return paint_(tint, program_name_ + ":"); }

  std::string program_name_;
  bool name_files_;
  Paint paint_;
  Format format_;
  Source source_;
  Capture* capture_ = nullptr;
  bool wrote_ = false;
  int write_errnum_ = 0;  ///< of the first write to stdout that failed
};

}  // namespace coimg
