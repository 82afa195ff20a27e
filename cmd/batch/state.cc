#include "cmd/batch/state.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "cmd/batch/text_file.h"
#include "cmd/json_writer.h"

namespace coimg {

namespace {

using nlohmann::json;

FileStamp parse_stamp(const json& value) {
  FileStamp stamp;
  stamp.exists = value.value("exists", false);
  stamp.device = value.value("device", uint64_t{0});
  stamp.inode = value.value("inode", uint64_t{0});
  stamp.size = value.value("size", uint64_t{0});
  stamp.mtime_ns = value.value("mtime_ns", int64_t{0});
  return stamp;
}

JsonValue render(const std::string& path, const FileStamp& stamp) {
  JsonValue value = JsonValue::object();
  value.add("path", path);
  value.add("exists", stamp.exists);
  value.add("device", stamp.device);
  value.add("inode", stamp.inode);
  value.add("size", stamp.size);
  value.add("mtime_ns", stamp.mtime_ns);
  return value;
}

Result<void> append(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = write(fd, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Error::from_errno(errno);
    text.remove_prefix(static_cast<size_t>(count));
  }
  return {};
}

}  // namespace

FileStamp FileStamp::of(const std::string& path) {
  struct stat status{};
  if (stat(path.c_str(), &status) != 0) return {};
  return {.device = status.st_dev,
          .inode = status.st_ino,
          .size = static_cast<uint64_t>(status.st_size),
          .mtime_ns = status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec,
          .exists = true};
}

Result<void> BatchState::open(const std::string& path, bool resume) {
  const std::string failure = fmt::format("could not open state file '{}'", path);
  fd_ = UniqueFd(::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  if (!fd_.valid()) return Error::from_errno(errno, failure);
  if (flock(fd_.get(), LOCK_EX | LOCK_NB) != 0) return Error(EBUSY, "another batch uses it").with_context(failure);
  if (!resume) return ftruncate(fd_.get(), 0) == 0 ? Result<void>() : Error::from_errno(errno, failure);

  const std::string text = COIMG_TRY(read_text_file(path).with_context(failure));
  std::string_view rest = text;
  for (size_t end = rest.find('\n'); end != std::string_view::npos; end = rest.find('\n')) {
    take_line(rest.substr(0, end));
    rest.remove_prefix(end + 1);
  }
  // What a crash has cut off must not become the beginning of the next line.
  return rest.empty() ? Result<void>() : append(fd_.get(), "\n").with_context(failure);
}

/// Lines that make no sense say nothing: the jobs run again.
void BatchState::take_line(std::string_view text) {
  try {
    const json line = json::parse(text);
    const std::string id = line.at("id");
    Entry entry;
    entry.command = line.at("command").get<std::vector<std::string>>();
    for (const json& file : line.at("outputs")) {
      const std::string path = file.at("path");
      files_[path] = parse_stamp(file);
      entry.outputs.push_back(path);
    }
    if (line.at("done").get<bool>()) {
      done_[id] = std::move(entry);
    } else {
      done_.erase(id);
    }
  } catch (const json::exception&) {
    return;
  }
}

bool BatchState::is_done(const std::string& id, const std::vector<std::string>& command,
                         const std::vector<std::string>& outputs) const {
  const auto found = done_.find(id);
  if (found == done_.end() || found->second.command != command) return false;
  const auto& recorded = found->second.outputs;
  const auto is_recorded = [&](const std::string& path) { return std::ranges::find(recorded, path) != recorded.end(); };
  const auto is_unchanged = [this](const std::string& path) {
    const auto stamp = files_.find(path);
    return stamp != files_.end() && stamp->second.exists && stamp->second == FileStamp::of(path);
  };
  return std::ranges::all_of(outputs, is_recorded) && std::ranges::all_of(recorded, is_unchanged);
}

Result<void> BatchState::record(const std::string& id, const std::vector<std::string>& command,
                                const std::set<std::string>& outputs, bool done) {
  if (!fd_.valid()) return {};
  JsonValue line = JsonValue::object();
  line.add("id", id);
  line.add("done", done);
  JsonValue words = JsonValue::array();
  for (const std::string& word : command) words.append(word);
  line.add("command", std::move(words));
  JsonValue files = JsonValue::array();
  for (const std::string& path : outputs) {
    // A job that failed half-way may have changed what others made, however that looks now.
    files.append(render(path, done ? FileStamp::of(path) : FileStamp()));
  }
  line.add("outputs", std::move(files));
  return append(fd_.get(), line.render_line()).with_context("could not write the state file");
}

}  // namespace coimg
