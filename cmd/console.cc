#include "cmd/console.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "cmd/json_writer.h"

namespace coimg {

namespace {

/// Without what tells readers of text that a line is a warning, and without the last newline.
std::string_view bare_warning(std::string_view program, std::string_view text) {
  if (text.ends_with('\n')) text.remove_suffix(1);
  if (text.starts_with(program) && text.substr(program.size()).starts_with(": "))
    text.remove_prefix(program.size() + 2);
  for (const std::string_view word : {"warning: ", "WARNING: "}) {
    if (text.starts_with(word)) text.remove_prefix(word.size());
  }
  return text;
}

}  // namespace

void Console::Capture::append(std::string& to, std::string_view text) {
  const size_t room = kMaxBytes - to.size();
  cut = cut || text.size() > room;
  to += text.substr(0, room);
}

void Console::out(std::string_view text) {
  if (text.empty()) return;
  if (capture_ != nullptr) {
    capture_->append(capture_->out, text);
    return;
  }
  wrote_ = true;
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() && write_errnum_ == 0) write_errnum_ = errno;
}

void Console::flush_out() {
  if (capture_ != nullptr) return;
  if (std::fflush(stdout) != 0 && write_errnum_ == 0) write_errnum_ = errno;
}

void Console::write_stderr(const std::string& text) {
  if (capture_ != nullptr) {
    capture_->append(capture_->err, text);
    return;
  }
  // Where both go to the same place, what was said first is read first.
  if (wrote_) flush_out();
  static_cast<void>(std::fwrite(text.data(), 1, text.size(), stderr));  // nobody is left to be told
}

JsonValue Console::start_line(std::string_view type) const {
  JsonValue line = JsonValue::object();
  line.add("type", type);
  if (!source_.job.empty()) line.add("job", source_.job);
  if (!source_.command.empty()) line.add("command", source_.command);
  return line;
}

void Console::write_message(std::string_view severity, std::string_view message, std::string_view file) {
  JsonValue line = start_line("message");
  line.add("severity", severity);
  line.add("message", message);
  if (!file.empty()) line.add("file", file);
  write_stderr(line.render_line());
}

/// The message, and what it leaves out of the file and the place.
std::string Console::describe(const Error& error) const {
  std::string text = error.message();
  if (!name_files_) return text;
  if (!error.place().structure.empty())
    text += fmt::format(" ({}, byte {})", error.place().structure, *error.place().offset);
  if (text.find(error.file()) == std::string::npos) text.insert(0, error.file() + ": ");
  return text;
}

void Console::error(const Error& error) {
  if (format_.json_log) {
    JsonValue line = start_line("message");
    line.add("severity", "error");
    line.add("message", error.message());
    if (const char* const name = strerrorname_np(error.errnum())) line.add("errno", name);
    if (!error.file().empty()) line.add("file", error.file());
    if (!error.place().structure.empty()) line.add("structure", error.place().structure);
    if (error.place().offset) line.add("offset", *error.place().offset);
    if (!error.hint().empty()) line.add("hint", bare_warning(program_name_, error.hint()));
    write_stderr(line.render_line());
    return;
  }
  std::string text;
  const std::string message = describe(error);
  std::string_view rest = message;
  for (;;) {
    const size_t end = rest.find('\n');
    text += fmt::format("{} {}\n", prefix(Tint::kBad), rest.substr(0, end));
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
  if (!error.hint().empty()) {
    text += error.hint();
    if (text.back() != '\n') text += '\n';
  }
  write_stderr(text);
}

void Console::warning(std::string_view text) {
  if (format_.json_log) {
    write_message("warning", bare_warning(program_name_, text), {});
  } else {
    write_stderr(fmt::format("{} warning: {}\n", prefix(Tint::kDoubtful), text));
  }
}

void Console::warning_lines(std::string_view file, std::string_view lines) {
  if (format_.json_log) {
    write_message("warning", bare_warning(program_name_, lines), file);
    return;
  }
  std::string text;
  while (!lines.empty()) {
    const size_t length = std::min(lines.find('\n'), lines.size() - 1) + 1;
    if (name_files_ && !file.empty()) text += fmt::format("{} {}: ", prefix(Tint::kDoubtful), file);
    text += lines.substr(0, length);
    lines.remove_prefix(length);
  }
  write_stderr(text);
}

void Console::note(std::string_view line) {
  if (format_.json_log) {
    write_message("note", line, {});
  } else {
    write_stderr(fmt::format("{}\n", line));
  }
}

void Console::finding(std::string_view file, std::string_view line) {
  constexpr std::string_view kDamage = "ERROR";
  const bool is_damage = line.starts_with(kDamage);
  if (format_.json_log) return write_message(is_damage ? "error" : "warning", line, file);
  if (is_damage) line.remove_prefix(kDamage.size());
  note((is_damage ? paint_(Tint::kBad, kDamage) : std::string()).append(line));
}

void Console::pass_on_err(const std::string& lines) {
  if (!lines.empty()) write_stderr(lines);
}

void Console::progress(uint64_t done, uint64_t total, double percent, uint64_t rate) {
  JsonValue line = start_line("progress");
  line.add("done", done);
  line.add("total", total);
  line.add("percent", percent);
  line.add("rate", rate);
  const std::string text = line.render_line();
  static_cast<void>(std::fwrite(text.data(), 1, text.size(), stderr));  // also while messages are captured
}

Result<void> Console::finish() {
  if (!wrote_) return {};
  flush_out();
  if (write_errnum_ != 0) return Error::from_errno(write_errnum_, "could not write to standard output");
  return {};
}

}  // namespace coimg
