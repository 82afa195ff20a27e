#include "block/protocol/new_files.h"

#include <fcntl.h>
#include <linux/stat.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ranges>

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "block/protocol/file_access.h"
#include "coroutine/worker_pool.h"

namespace coimg {

namespace {

constexpr int kOpenFlags = O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
constexpr mode_t kMode = 0644;
constexpr mode_t kPrivateMode = 0600;  // until the file has the owner and mode of the one that it replaces
constexpr unsigned kNameAttempts = 100;
constexpr size_t kMaxNameBytes = 255;

Error cannot_create(int error, const std::string& path) {
  return Error::from_errno(error, fmt::format("Could not create '{}'", path)).in_file(path);
}

/// How an open file is reached, whether or not it has a name.
std::string path_of(int fd) { return fmt::format("/proc/self/fd/{}", fd); }

std::optional<struct stat> status_of(int fd) {
  struct stat info{};
  if (fstat(fd, &info) != 0) return std::nullopt;
  return info;
}

std::optional<struct stat> status_at(const FilePlace& place) {
  struct stat info{};
  if (fstatat(place.directory.get(), place.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return std::nullopt;
  return info;
}

bool is_same(const struct stat& info, uint64_t device, uint64_t inode) {
  return info.st_dev == device && info.st_ino == inode;
}

/// Files that are mounted one by one, as containers are given them, cannot be renamed over.
bool is_mount_point(int fd) {
#if defined(STATX_ATTR_MOUNT_ROOT) && defined(SYS_statx)
  union {  // the kernel's struct has grown behind the end of the C library's
    char room[512];
    struct ::statx info;
  } answer{};
  if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &answer) != 0) return false;
  return (answer.info.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
#else
  (void)fd;
  return false;
#endif
}

/// ".disk.qcow2.5f3a...": hidden, and to be recognised by people who find it.
std::string temporary_name(const std::string& name) {
  uint64_t random = 0;
  if (getrandom(&random, sizeof(random), 0) != static_cast<ssize_t>(sizeof(random))) random = 0;
  const std::string suffix = fmt::format(".{:016x}", random);
  return "." + name.substr(0, kMaxNameBytes - suffix.size() - 1) + suffix;
}

/// Some file systems do not sync directories, and write names down at once.
Result<void> sync_directory(const FilePlace& place, const std::string& path) {
  const UniqueFd fd(openat(place.directory.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return {};  // writable, but not readable: it cannot be asked for
  if (fsync(fd.get()) == 0 || errno == EINVAL || errno == ENOTSUP) return {};
  const int error = errno;
  return Error::from_errno(error, fmt::format("Could not sync the directory of '{}'", path)).in_file(path);
}

}  // namespace

Result<int> NewFiles::begin(const std::string& path) {
  File file{.path = path};
  file.old_fd = UniqueFd(open(path.c_str(), kOpenFlags));
  if (file.old_fd.valid()) {
    COIMG_TRY(begin_over(file));
  } else if (errno != ENOENT) {
    return cannot_create(errno, path);
  } else if (auto place = find_file_place(path)) {
    file.place = *std::move(place);
    if (!make_unnamed(file, kMode)) file.place = {};
  }
  if (file.in_place()) COIMG_TRY(begin_in_place(file));
  const std::lock_guard guard(lock_);
  files_.push_back(std::move(file));
  return files_.back().fd.get();
}

/// Makes the file that is to replace an existing one, unless that has to stay: then it has no place.
Result<void> NewFiles::begin_over(File& file) {
  const auto old = status_of(file.old_fd.get());
  if (!old) return cannot_create(errno, file.path);
  if (!S_ISREG(old->st_mode)) return {};
  if (ofd_locks_available()) {
    COIMG_TRY(file.old_locks.change(file.old_fd.get(), {kPermWrite | kPermResize, kPermAll & ~kPermResize}, file.path));
  }
  auto place = find_file_place(file.path);
  if (!place || old->st_nlink != 1 || is_mount_point(file.old_fd.get())) return {};
  const auto there = status_at(*place);
  if (!there || !is_same(*there, old->st_dev, old->st_ino)) return {};
  file.place = *std::move(place);
  file.state = State::kReplacing;
  file.old_device = old->st_dev;
  file.old_inode = old->st_ino;
  if (make_unnamed(file, kPrivateMode) && copy_file_access(file.old_fd.get(), file.fd.get())) return {};
  withdraw(file);
  file.fd.reset();
  file.place = {};
  return {};
}

/// Opens the file itself, and empties it if it is a regular one.
Result<void> NewFiles::begin_in_place(File& file) {
  file.state = State::kEmptied;
  file.fd = std::move(file.old_fd);
  if (!file.fd.valid()) {
    file.fd = UniqueFd(open(file.path.c_str(), kOpenFlags | O_CREAT | O_EXCL, kMode));
    if (file.fd.valid()) file.state = State::kNew;
    if (!file.fd.valid() && errno == EEXIST) file.fd = UniqueFd(open(file.path.c_str(), kOpenFlags | O_CREAT, kMode));
    if (!file.fd.valid()) return cannot_create(errno, file.path);
  }
  const auto info = status_of(file.fd.get());
  if (!info) return cannot_create(errno, file.path);
  file.old_device = info->st_dev;
  file.old_inode = info->st_ino;
  if (!S_ISREG(info->st_mode)) {
    file.state = State::kKept;
    if (S_ISBLK(info->st_mode) || S_ISCHR(info->st_mode)) return {};
    return Error(EINVAL, fmt::format("'file' driver requires '{}' to be a regular file", file.path));
  }
  if (ofd_locks_available()) {
    COIMG_TRY(file.old_locks.change(file.fd.get(), {kPermWrite | kPermResize, kPermAll & ~kPermResize}, file.path));
  }
  const bool emptied = ftruncate(file.fd.get(), 0) == 0;
  const int error = errno;
  // Those who open the file take locks of their own, which these would be in the way of.
  if (ofd_locks_available()) COIMG_TRY(file.old_locks.change(file.fd.get(), {0, kPermAll}, file.path));
  if (!emptied) return cannot_create(error, file.path);
  return {};
}

/// False where no such file can be made.
bool NewFiles::make_unnamed(File& file, unsigned mode) const {
  if (access("/proc/self/fd", X_OK) != 0) return false;  // the file could not be opened again
  const int directory = file.place.directory.get();
  if (naming_ == Naming::kWhenComplete) {
    file.fd = UniqueFd(openat(directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, mode));
    if (file.fd.valid()) return true;
  }
  for (unsigned i = 0; i < kNameAttempts; ++i) {
    const std::string name = temporary_name(file.place.name);
    file.fd = UniqueFd(openat(directory, name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, mode));
    if (file.fd.valid()) {
      file.temporary = name;
      return true;
    }
    if (errno != EEXIST) return false;
  }
  return false;
}

std::optional<std::string> NewFiles::find(const std::string& path) const {
  const std::lock_guard guard(lock_);
  if (std::ranges::all_of(files_, [](const File& file) { return file.in_place() || file.published; })) {
    return std::nullopt;
  }
  const auto place = find_file_place(path);
  struct stat info{};
  const bool exists = stat(path.c_str(), &info) == 0;
  for (const File& file : files_) {
    if (file.in_place() || file.published) continue;
    // By the old file too: two names may be one to the file system ("DISK" and "disk").
    const bool is_old = exists && file.state == State::kReplacing && is_same(info, file.old_device, file.old_inode);
    if (is_old || (place && place->is(file.place))) return path_of(file.fd.get());
  }
  return std::nullopt;
}

Result<void> NewFiles::publish(bool durable) {
  publishing_ = true;
  Result<void> done = co_run_on_worker([this, durable] { return publish_all(durable); });
  publishing_ = false;
  if (!done.ok()) {
    discard();
    return done;
  }
  files_.clear();
  return {};
}

/// One job on a worker: each step waits for the one before.
Result<void> NewFiles::publish_all(bool durable) {
  if (durable) COIMG_TRY(sync_all());
  for (File& file : std::views::reverse(files_)) {
    if (!file.in_place()) COIMG_TRY(put_in_place(file));
  }
  for (const File& file : files_) {
    if (durable && !file.in_place()) COIMG_TRY(sync_directory(file.place, file.path));
  }
  return {};
}

Result<void> NewFiles::sync_all() const {
  for (const File& file : files_) {
    if (file.state == State::kKept) continue;  // a device: those who wrote it have flushed it
    if (fsync(file.fd.get()) == 0) continue;
    const int error = errno;
    return Error::from_errno(error, fmt::format("Could not sync '{}'", file.path)).in_file(file.path);
  }
  return {};
}

/// Links the file to its name. One that is to be replaced is renamed over, which needs a name for a moment.
Result<void> NewFiles::put_in_place(File& file) {
  const int directory = file.place.directory.get();
  const auto there = status_at(file.place);
  const bool replaces = there && file.state == State::kReplacing && is_same(*there, file.old_device, file.old_inode);
  if (there && !replaces) {
    return Error(EEXIST, fmt::format("Could not create '{}': another file has been put there meanwhile", file.path))
        .in_file(file.path);
  }
  const std::string unnamed = path_of(file.fd.get());
  if (!replaces && file.temporary.empty()) {
    if (linkat(AT_FDCWD, unnamed.c_str(), directory, file.place.name.c_str(), AT_SYMLINK_FOLLOW) != 0) {
      return cannot_create(errno, file.path);
    }
  } else {
    for (unsigned i = 0; file.temporary.empty(); ++i) {
      const std::string name = temporary_name(file.place.name);
      if (linkat(AT_FDCWD, unnamed.c_str(), directory, name.c_str(), AT_SYMLINK_FOLLOW) == 0) {
        file.temporary = name;
      } else if (errno != EEXIST || i == kNameAttempts) {
        return cannot_create(errno, file.path);
      }
    }
    const char *const from = file.temporary.c_str(), *const to = file.place.name.c_str();
    int result = renameat2(directory, from, directory, to, replaces ? 0 : RENAME_NOREPLACE);
    // Not all file systems have the flag; that there is no such file was seen just now.
    if (result != 0 && errno == EINVAL) result = renameat(directory, from, directory, to);
    if (result != 0) return cannot_create(errno, file.path);
    file.temporary.clear();
  }
  file.published = true;
  return {};
}

/// Takes back the name of a file that is not to be there.
void NewFiles::withdraw(File& file) {
  if (!file.temporary.empty()) unlinkat(file.place.directory.get(), file.temporary.c_str(), 0);
  file.temporary.clear();
}

void NewFiles::discard() {
  if (publishing_) return;  // the last step is being made: what it leaves is whole
  const std::lock_guard guard(lock_);
  for (File& file : files_) {
    struct stat info{};
    if (!file.in_place()) {
      withdraw(file);
      if (file.published && file.state == State::kNew) unlinkat(file.place.directory.get(), file.place.name.c_str(), 0);
    } else if (file.state == State::kEmptied) {
      if (ftruncate(file.fd.get(), 0) != 0) spdlog::warn("could not empty '{}': {}", file.path, std::strerror(errno));
    } else if (file.state == State::kNew && stat(file.path.c_str(), &info) == 0 &&
               is_same(info, file.old_device, file.old_inode)) {
      if (unlink(file.path.c_str()) != 0) spdlog::warn("could not remove '{}': {}", file.path, std::strerror(errno));
    }
  }
  files_.clear();
}

}  // namespace coimg
