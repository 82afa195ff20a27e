#include "block/protocol/file_access.h"

#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

namespace coimg {

namespace {

constexpr size_t kMaxAttributeBytes = 64 * 1024;  // the kernel's limit, for a list of names and for a value
constexpr const char* kAccessList = "system.posix_acl_access";

bool copy_attributes(int from, int to) {
  std::vector<char> names(kMaxAttributeBytes), value(kMaxAttributeBytes), present(kMaxAttributeBytes);
  const ssize_t bytes = flistxattr(from, names.data(), names.size());
  if (bytes < 0) return errno == ENOTSUP;
  for (const char* name = names.data(); name < names.data() + bytes; name += std::strlen(name) + 1) {
    const ssize_t length = fgetxattr(from, name, value.data(), value.size());
    if (length < 0) return false;
    const ssize_t given = fgetxattr(to, name, present.data(), present.size());
    if (given == length && std::equal(value.begin(), value.begin() + length, present.begin())) continue;
    if (fsetxattr(to, name, value.data(), static_cast<size_t>(length), 0) != 0) return false;
  }
  return true;
}

}  // namespace

bool copy_file_access(int from, int to) {
  struct stat old_status{}, own{};
  if (fstat(from, &old_status) != 0 || fstat(to, &own) != 0) return false;
  const bool same_owner = own.st_uid == old_status.st_uid && own.st_gid == old_status.st_gid;
  if (!same_owner && fchown(to, old_status.st_uid, old_status.st_gid) != 0) return false;
  // The directory may have given the new file a list that the old one does not have.
  if (fremovexattr(to, kAccessList) != 0 && errno != ENODATA && errno != ENOTSUP) return false;
  return fchmod(to, old_status.st_mode & 07777) == 0 && copy_attributes(from, to);
}

}  // namespace coimg
