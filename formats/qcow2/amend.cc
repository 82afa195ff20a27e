// Changing what an image was created with: its version, its size, how its refcounts are kept, and where its data are.
//
// Each step leaves a sound image, and ends with one write of the header; a crash leaves the image before or after it.
//
// Format: qcow2, section "Amend".
#include <fmt/format.h>

#include <utility>

#include "block/util/math.h"
#include "formats/qcow2/create.h"
#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {

namespace {

/// What the options ask for, checked against what the image is.
struct Amendment {
  uint32_t version = 3;
  std::optional<bool> lazy_refcounts = {};
  std::optional<std::string> data_file = {};
  bool raw_data_file_off = false;
  uint32_t refcount_order = kDefaultRefcountOrder;
  uint64_t size = 0;  ///< 0: as it is
};

Result<Amendment> check_amendment(const CreateOptions& options, const Header& header) {
  Amendment amendment{.version = header.version, .refcount_order = header.refcount_order};
  if (const auto compat = options.text("compat")) {
    const auto version = find_version(*compat);
    if (!version) return Error(EINVAL, fmt::format("Unknown compatibility level {}", *compat));
    amendment.version = *version;
  }
  const bool external = (header.incompatible_features & kExternalDataFile) != 0;
  if (options.given("data_file")) {
    if (!external) return Error(EINVAL, "data-file can only be set for images that use an external data file");
    amendment.data_file = options.text("data_file");
  }
  if (options.given("data_file_raw")) {
    if (options.boolean("data_file_raw") && !(header.autoclear_features & kRawExternalData)) {
      return Error(EINVAL, "data-file-raw cannot be set on existing images");
    }
    amendment.raw_data_file_off = !options.boolean("data_file_raw");
  }
  if (options.given("refcount_bits")) {
    amendment.refcount_order = COIMG_TRY(refcount_order_of(options));
    if (amendment.version < 3 && amendment.refcount_order != kDefaultRefcountOrder) {
      return Error(EINVAL,
                   "Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or "
                   "greater)");
    }
  }
  if (options.given("lazy_refcounts")) {
    amendment.lazy_refcounts = options.boolean("lazy_refcounts");
    if (*amendment.lazy_refcounts && amendment.version < 3) {
      return Error(EINVAL,
                   "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)");
    }
  }
  amendment.size = options.number("size").value_or(0);
  return amendment;
}

}  // namespace

Result<void> Qcow2::amend(const CreateOptions& options, const ProgressCallback& on_progress) {
  COIMG_TRY(check_usable());
  const TrackedRequest everything(in_flight_, 0, kMaxFileOffset, RangeMode::kExclusive);
  Amendment amendment;
  {
    CoWriteGuard guard(lock_);
    amendment = COIMG_TRY(check_amendment(options, header_));
    if (amendment.version > header_.version) COIMG_TRY(upgrade_locked());
    if (amendment.version < header_.version) COIMG_TRY(check_downgrade_locked(amendment.refcount_order));
    if (amendment.refcount_order != header_.refcount_order) {
      COIMG_TRY(change_refcount_width_locked(amendment.refcount_order));
    }
    Header amended = header_;
    if (amendment.data_file) amended.data_file = *amendment.data_file;
    if (amendment.data_file && amendment.data_file->empty()) amended.data_file.reset();
    if (amendment.raw_data_file_off) amended.autoclear_features &= ~uint64_t{kRawExternalData};
    if (amendment.lazy_refcounts) {
      if (*amendment.lazy_refcounts) {
        amended.compatible_features |= kLazyRefcounts;
      } else {
        amended.compatible_features &= ~uint64_t{kLazyRefcounts};
        amended.incompatible_features &= ~uint64_t{kDirty};  // the refcounts go to disk before the header
      }
    }
    COIMG_TRY(replace_header_locked(std::move(amended)));
  }
  if (amendment.size != 0) {
    if (!is_aligned(amendment.size, kSectorSize)) return Error(EINVAL, "The new size must be a multiple of 512");
    COIMG_TRY(resize_exclusively(amendment.size));
  }
  uint32_t version = 0;
  {
    CoReadGuard guard(lock_);
    version = header_.version;
  }
  return amendment.version < version ? downgrade(on_progress) : Result<void>();
}

/// Writes the header when it differs; what is in memory changes only when that worked.
Result<void> Qcow2::replace_header_locked(Header header) {
  if (COIMG_TRY(encode_header(header)) == COIMG_TRY(encode_header(header_))) return {};
  COIMG_TRY(flush_locked());
  Header old = std::exchange(header_, std::move(header));
  auto stored = rewrite_header_locked();
  if (!stored.ok()) header_ = std::move(old);
  return stored;
}

/// Version 3 wants to know the disk's size of each snapshot.
Result<void> Qcow2::upgrade_locked() {
  if (!snapshots_.empty()) COIMG_TRY(store_snapshots_locked(snapshots_));
  Header upgraded = header_;
  upgraded.version = 3;
  upgraded.header_length = kHeaderLengthV3;
  upgraded.feature_names = known_feature_names();
  return replace_header_locked(std::move(upgraded));
}

}  // namespace coimg::qcow2
