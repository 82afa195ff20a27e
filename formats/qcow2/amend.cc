// Changing what an image was created with: its version, its size, how its refcounts are kept, and where its data are.
//
// Each step leaves a sound image, and ends with one write of the header; a crash leaves the image before or after it.
//
// Format: qcow2, section "Amend".
#include <fmt/format.h>

#include <algorithm>
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
  uint64_t size = 0;  ///< 0: as it is
};

Result<Amendment> check_amendment(const CreateOptions& options, const Header& header) {
  Amendment amendment{.version = header.version};
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
    const uint32_t order = COIMG_TRY(refcount_order_of(options));
    if (amendment.version < 3 && order != 4) {
      return Error(EINVAL,
                   "Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or "
                   "greater)");
    }
    if (order != header.refcount_order) return Error(ENOTSUP, "the width of refcounts cannot be changed");
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
    if (amendment.version < header_.version) COIMG_TRY(check_downgrade_locked());
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

// --- to version 2 ----------------------------------------------------------------------------------------------------

/// Refuses what version 2 cannot express. Nothing has changed yet.
Result<void> Qcow2::check_downgrade_locked() {
  if (header_.refcount_order != 4) return Error(ENOTSUP, "compat=0.10 requires refcount_bits=16");
  if (geometry_.external_data()) return Error(ENOTSUP, "Cannot downgrade an image with a data file");
  constexpr uint64_t kMaxVmState = UINT32_MAX;
  const auto differs = [this](const Snapshot& snapshot) {
    return snapshot.disk_size != virtual_size_ || snapshot.vm_state_bytes > kMaxVmState;
  };
  if (std::ranges::any_of(snapshots_, differs)) {
    return Error(ENOTSUP, "Internal snapshots prevent downgrade of image");
  }
  const uint64_t others = header_.incompatible_features & ~uint64_t{kDirty | kCompressionType};
  if (others != 0) {
    return Error(ENOTSUP, fmt::format("Cannot downgrade an image with incompatible features {:#x} set", others));
  }
  if (header_.bitmaps) return Error(ENOTSUP, "Cannot downgrade an image with bitmaps; remove them first");

  bool zstd_streams =
      COIMG_TRY(any_entry_locked(l1_table_, [](L2Entry entry) { return entry.type() == ClusterType::kCompressed; }));
  for (const Snapshot& snapshot : snapshots_) {
    const std::vector<L1Entry> table = COIMG_TRY(load_snapshot_l1_locked(snapshot));
    zstd_streams |=
        COIMG_TRY(any_entry_locked(table, [](L2Entry entry) { return entry.type() == ClusterType::kCompressed; }));
    const bool zeros = COIMG_TRY(any_entry_locked(table, [](L2Entry entry) {
      return entry.type() == ClusterType::kZeroPlain || entry.type() == ClusterType::kZeroAllocated;
    }));
    if (zeros) return Error(ENOTSUP, "Cannot downgrade an image whose snapshots have zero clusters");
  }
  if (zstd_streams && compression_type_ != CompressionType::kZlib) {
    return Error(ENOTSUP, "Cannot downgrade an image with zstd compression type and existing compressed clusters");
  }
  return {};
}

/// Whether `wanted` is true for an entry of one of the tables.
Result<bool> Qcow2::any_entry_locked(std::span<const L1Entry> l1_table, const std::function<bool(L2Entry)>& wanted) {
  for (const L1Entry l1_entry : l1_table) {
    if (!l1_entry.has_table()) continue;
    if (geometry_.in_cluster(l1_entry.l2_table().v) != 0) {
      return corruption(fmt::format("L2 table offset {:#x} unaligned", l1_entry.l2_table().v), true);
    }
    for (uint64_t index = 0; index < geometry_.l2_entries();) {
      const L2Slice slice = COIMG_TRY(load_l2_slice_locked(l1_entry.l2_table(), index));
      for (size_t i = slice.index; i < slice.entries.size(); ++i, ++index) {
        if (wanted(slice.entries[i])) return true;
      }
    }
  }
  return false;
}

/// Zero clusters become clusters with zeros, or, with no backing file to show, none at all. Then the header changes.
Result<void> Qcow2::downgrade(const ProgressCallback& on_progress) {
  for (GuestOffset offset(0); offset.v < virtual_size_;) {
    Extent extent;
    bool backed = false;
    {
      CoReadGuard guard(lock_);
      extent = COIMG_TRY(map_locked(offset, virtual_size_ - offset.v));
      backed = has_backing_locked();
    }
    if (extent.type == ClusterType::kZeroPlain || extent.type == ClusterType::kZeroAllocated) {
      COIMG_TRY(backed ? write_zero_bytes(offset, extent.bytes)
                       : rewrite_entries(offset, geometry_.clusters_for(extent.bytes), MissingTables::kSkip,
                                         FreedSpace::kDiscard, [](uint64_t, L2Entry) { return L2Entry(); }));
    }
    offset += extent.bytes;
    if (on_progress) on_progress(offset.v, virtual_size_);
  }
  CoWriteGuard guard(lock_);
  Header downgraded = header_;
  downgraded.version = 2;
  downgraded.header_length = sizeof(DiskHeaderV2);
  downgraded.incompatible_features = downgraded.compatible_features = downgraded.autoclear_features = 0;
  downgraded.compression_type = CompressionType::kZlib;
  downgraded.feature_names.clear();
  downgraded.unknown_fields.clear();
  return replace_header_locked(std::move(downgraded));
}

}  // namespace coimg::qcow2
