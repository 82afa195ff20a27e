#include "block/protocol/file_place.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>

namespace coimg {

namespace {

constexpr unsigned kMaxLinks = 40;  // as many as the kernel follows

struct SplitPath {
  std::string directory, name;
};

SplitPath split_path(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {".", path};
  return {path.substr(0, slash + 1), path.substr(slash + 1)};
}

/// Links in /proc lead to open files, whatever path they show.
bool is_in_proc(int directory) {
  struct statfs info{};
  return fstatfs(directory, &info) != 0 || info.f_type == PROC_SUPER_MAGIC;
}

/// What the kernel holds back where everybody may put links (fs.protected_symlinks): following those of others.
bool is_trusted(int directory, const struct stat& link) {
  struct stat info{};
  if (fstat(directory, &info) != 0) return false;
  const bool shared = (info.st_mode & S_ISVTX) && (info.st_mode & S_IWOTH);
  return !shared || link.st_uid == geteuid() || link.st_uid == info.st_uid;
}

std::optional<std::string> read_link(int directory, const std::string& name) {
  char target[PATH_MAX];
  const ssize_t length = readlinkat(directory, name.c_str(), target, sizeof(target));
  if (length <= 0 || length == static_cast<ssize_t>(sizeof(target))) return std::nullopt;
  return std::string(target, static_cast<size_t>(length));
}

}  // namespace

bool FilePlace::is(const FilePlace& other) const {
  struct stat mine{}, theirs{};
  return name == other.name && fstat(directory.get(), &mine) == 0 && fstat(other.directory.get(), &theirs) == 0 &&
         mine.st_dev == theirs.st_dev && mine.st_ino == theirs.st_ino;
}

std::optional<FilePlace> find_file_place(const std::string& path) {
  std::string at = path;
  for (unsigned links = 0; links <= kMaxLinks; ++links) {
    const SplitPath parts = split_path(at);
    if (parts.name.empty() || parts.name == "." || parts.name == "..") return std::nullopt;
    FilePlace place{UniqueFd(open(parts.directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)), parts.name};
    if (!place.directory.valid() || is_in_proc(place.directory.get())) return std::nullopt;
    struct stat info{};
    if (fstatat(place.directory.get(), place.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno != ENOENT) return std::nullopt;
      return place;
    }
    if (!S_ISLNK(info.st_mode)) return place;
    if (!is_trusted(place.directory.get(), info)) return std::nullopt;
    const auto target = read_link(place.directory.get(), place.name);
    if (!target) return std::nullopt;
    at = target->starts_with('/') ? *target : parts.directory + "/" + *target;
  }
  return std::nullopt;
}

}  // namespace coimg
