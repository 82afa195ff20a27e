#include "cmd/console.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

namespace coimg {

void Console::out(std::string_view text) {
  if (text.empty()) return;
  wrote_ = true;
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() && write_errnum_ == 0) write_errnum_ = errno;
}

void Console::flush_out() {
  if (std::fflush(stdout) != 0 && write_errnum_ == 0) write_errnum_ = errno;
}

void Console::write_stderr(const std::string& text) {
  // Where both go to the same place, what was said first is read first.
  if (wrote_) flush_out();
  static_cast<void>(std::fwrite(text.data(), 1, text.size(), stderr));  // nobody is left to be told
}

/// The message, and what it leaves out of the file and the place.
std::string Console::describe(const Error& error) const {
  std::string text = error.message();
  if (!name_files_) return text;
  if (!error.place().structure.empty())
    text += fmt::format(" ({}, byte {})", error.place().structure, error.place().offset);
  if (text.find(error.file()) == std::string::npos) text.insert(0, error.file() + ": ");
  return text;
}

void Console::error(const Error& error) {
  std::string text;
  const std::string message = describe(error);
  std::string_view rest = message;
  for (;;) {
    const size_t end = rest.find('\n');
    text += fmt::format("{}: {}\n", program_name_, rest.substr(0, end));
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
  if (!error.hint().empty()) {
    text += error.hint();
    if (text.back() != '\n') text += '\n';
  }
  write_stderr(text);
}

void Console::warning(std::string_view text) { write_stderr(fmt::format("{}: warning: {}\n", program_name_, text)); }

void Console::warning_lines(std::string_view file, std::string_view lines) {
  std::string text;
  while (!lines.empty()) {
    const size_t length = std::min(lines.find('\n'), lines.size() - 1) + 1;
    if (name_files_ && !file.empty()) text += fmt::format("{}: {}: ", program_name_, file);
    text += lines.substr(0, length);
    lines.remove_prefix(length);
  }
  write_stderr(text);
}

void Console::note(std::string_view line) { write_stderr(fmt::format("{}\n", line)); }

Result<void> Console::finish() {
  if (!wrote_) return {};
  flush_out();
  if (write_errnum_ != 0) return Error::from_errno(write_errnum_, "could not write to standard output");
  return {};
}

}  // namespace coimg
