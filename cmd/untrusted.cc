#include "cmd/untrusted.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>

#include "coroutine/compiler.h"

namespace coimg {

namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kAddressSpaceBytes =
    COIMG_ASAN || COIMG_TSAN ? RLIM_INFINITY : 2048 * kMiB;  ///< sanitizers take all
constexpr uint64_t kOutputBytes = 64 * kMiB;                 ///< for what commands that only read print

Result<void> lower(__rlimit_resource resource, rlim_t value) {
  struct rlimit limit{};
  if (getrlimit(resource, &limit) != 0) return Error::from_errno(errno, "could not ask for resource limits");
  const rlim_t bound = std::min({value, limit.rlim_cur, limit.rlim_max});
  limit = {.rlim_cur = bound, .rlim_max = bound};
  if (setrlimit(resource, &limit) != 0) return Error::from_errno(errno, "could not set resource limits");
  return {};
}

}  // namespace

ResourceLimits limits_for_untrusted(CommandWork work) {
  switch (work) {
    case CommandWork::kLook:
      return {.address_space_bytes = kAddressSpaceBytes, .cpu_seconds = 10, .file_bytes = kOutputBytes};
    case CommandWork::kRead:
      return {.address_space_bytes = kAddressSpaceBytes, .cpu_seconds = 600, .file_bytes = kOutputBytes};
    case CommandWork::kChange:
      break;
  }
  return {.address_space_bytes = kAddressSpaceBytes, .cpu_seconds = 3600, .file_bytes = 0};
}

Result<void> limit_resources(const ResourceLimits& limits) {
  COIMG_TRY(lower(RLIMIT_AS, limits.address_space_bytes));
  COIMG_TRY(lower(RLIMIT_CPU, limits.cpu_seconds));
  if (limits.file_bytes != 0) COIMG_TRY(lower(RLIMIT_FSIZE, limits.file_bytes));
  return lower(RLIMIT_CORE, 0);
}

}  // namespace coimg
