#include "formats/qcow2/runtime_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string>
#include <utility>

namespace coimg::qcow2 {

namespace {

constexpr std::pair<std::string_view, uint32_t> kLevels[] = {
    {"none", 0}, {"constant", kOverlapConstant}, {"cached", kOverlapCached}, {"all", kOverlapAll}};

constexpr std::pair<const char*, uint32_t> kStructures[] = {
    {"overlap-check.main-header", kOverlapHeader},
    {"overlap-check.active-l1", kOverlapActiveL1},
    {"overlap-check.active-l2", kOverlapActiveL2},
    {"overlap-check.refcount-table", kOverlapRefcountTable},
    {"overlap-check.refcount-block", kOverlapRefcountBlock},
    {"overlap-check.snapshot-table", kOverlapSnapshotTable},
    {"overlap-check.inactive-l1", kOverlapInactiveL1},
    {"overlap-check.inactive-l2", kOverlapInactiveL2},
    {"overlap-check.bitmap-directory", kOverlapBitmapDirectory}};

/// A level, from which single structures may differ.
Result<uint32_t> take_overlap_checks(Options& options) {
  const std::optional<std::string> plain = options.take_text("overlap-check");
  const std::optional<std::string> level = options.take_text("overlap-check.template");
  if (plain && level && *plain != *level) {
    return Error(EINVAL,
                 fmt::format("Conflicting values for qcow2 options 'overlap-check' ('{}') and 'overlap-check.template' "
                             "('{}')",
                             *plain, *level));
  }
  const std::string name = level ? *level : plain.value_or("cached");
  const auto* const found = std::ranges::find(kLevels, name, [](const auto& entry) { return entry.first; });
  if (found == std::end(kLevels)) {
    return Error(EINVAL, fmt::format("Unsupported value '{}' for qcow2 option 'overlap-check'. Allowed are any of the "
                                     "following: none, constant, cached, all",
                                     name));
  }
  uint32_t checks = found->second;
  for (const auto& [option, bit] : kStructures) {
    const std::optional<bool> wanted = COIMG_TRY(options.take_bool(option));
    if (wanted) checks = *wanted ? checks | bit : checks & ~bit;
  }
  return checks;
}

/// The caches have their own sizes; what others would refuse is a mistake all the same.
Result<void> check_cache_options(Options& options, const Header& header) {
  constexpr uint64_t kMinEntryBytes = 512;
  const uint64_t cluster_size = uint64_t{1} << header.cluster_bits;
  const auto both = COIMG_TRY(options.take_size("cache-size"));
  const auto l2 = COIMG_TRY(options.take_size("l2-cache-size"));
  const auto refcounts = COIMG_TRY(options.take_size("refcount-cache-size"));
  const uint64_t entry = COIMG_TRY(options.take_size("l2-cache-entry-size")).value_or(cluster_size);
  const auto interval = COIMG_TRY(options.take_size("cache-clean-interval"));
  if (both && l2 && refcounts) {
    return Error(EINVAL, "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time");
  }
  if (both && l2 && *l2 > *both) return Error(EINVAL, "l2-cache-size may not exceed cache-size");
  if (both && refcounts && *refcounts > *both) return Error(EINVAL, "refcount-cache-size may not exceed cache-size");
  if (entry < kMinEntryBytes || entry > cluster_size || !std::has_single_bit(entry)) {
    return Error(EINVAL, fmt::format("L2 cache entry size must be a power of two between {} and the cluster size ({})",
                                     kMinEntryBytes, cluster_size));
  }
  if (refcounts && *refcounts / cluster_size > INT32_MAX) return Error(EINVAL, "Refcount cache size too big");
  if (interval && *interval > UINT32_MAX) return Error(EINVAL, "Cache clean interval too big");
  return {};
}

}  // namespace

Result<RuntimeOptions> take_runtime_options(Options& options, const Header& header) {
  COIMG_TRY(check_cache_options(options, header));
  RuntimeOptions taken;
  taken.lazy_refcounts = COIMG_TRY(options.take_bool("lazy-refcounts"));
  if (taken.lazy_refcounts.value_or(false) && header.version < 3) {
    return Error(EINVAL, "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level");
  }
  taken.overlap_checks = COIMG_TRY(take_overlap_checks(options));
  for (const auto& [name, value] : {std::pair{"pass-discard-request", &taken.discard_on_request},
                                    std::pair{"pass-discard-snapshot", &taken.discard_snapshots},
                                    std::pair{"pass-discard-other", &taken.discard_other}}) {
    *value = COIMG_TRY(options.take_bool(name)).value_or(*value);
  }
  return taken;
}

}  // namespace coimg::qcow2
