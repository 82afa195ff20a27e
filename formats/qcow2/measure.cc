// How large an image will become: as qemu-img says it, by formulas, or as a copy makes it (copy_size.h).
//
// Only options that change the size are looked at; what is wrong with the others turns up when the image is made.
//
// Format: qcow2, section "measure".
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>

#include "block/copy_forecast.h"
#include "block/data_size.h"
#include "block/util/math.h"
#include "formats/qcow2/copy_size.h"
#include "formats/qcow2/create.h"

namespace coimg::qcow2 {

namespace {

constexpr uint64_t kBitmapEntryBytes = 24;
// Going through a full disk in so many steps takes about a third of a second. Enough for 16 TiB whatever the clusters.
constexpr uint64_t kMaxFullDiskSteps = 13'000'000;

Error too_large() { return {EFBIG, "The image size is too large (try using a larger cluster size)"}; }

Result<Preallocation> measured_preallocation(const CreateOptions& options) {
  const std::string mode = options.text("preallocation").value_or("off");
  if (const auto found = find_preallocation(mode)) return *found;
  return Error(EINVAL, fmt::format("invalid parameter value: {}", mode));
}

Result<void> check_encryption(const CreateOptions& options) {
  if (options.text("encrypt.format") != "luks") return {};
  if (!options.given("encrypt.key-secret")) {
    return Error(EINVAL, "Parameter 'encrypt.key-secret' is required for cipher");
  }
  return Error(ENOTSUP, "encryption with luks is not supported");
}

/// What an image takes of which every cluster is stored, by formulas.
struct FullImage {
  uint64_t guest_bytes = 0;  ///< whole clusters
  uint64_t tables = 0;       ///< header, L1 and L2 tables
  RefcountMetadata refcounts = {};
};

Result<FullImage> full_image(const Geometry& geometry, uint64_t virtual_size) {
  const uint64_t cluster_size = geometry.cluster_size();
  if (virtual_size > kMaxFileOffset - cluster_size) return too_large();
  FullImage full{.guest_bytes = geometry.cluster_up(virtual_size)};
  // Whole L2 tables, and whole clusters of L1 table, as they are allocated.
  const uint64_t l2_tables = geometry.l1_needed(full.guest_bytes);
  if (l2_tables > kMaxL1Entries) return too_large();
  full.tables = cluster_size + l2_tables * cluster_size + align_up(l2_tables * sizeof(be64), cluster_size);
  const uint64_t stored = geometry.external_data() ? 0 : full.guest_bytes;
  full.refcounts = refcount_metadata_for(geometry, (full.tables + stored) / cluster_size);
  return full;
}

uint64_t metadata_bytes(const Geometry& geometry, const FullImage& full) {
  return full.tables + ((full.refcounts.table_clusters + full.refcounts.blocks) << geometry.cluster_bits());
}

// --- qemu-img's figures ----------------------------------------------------------------------------------------------

/// What copies of the bitmaps take: each one's data and table, and the directory. Counts inconsistent ones, which are
/// not copied, as qemu-img does.
uint64_t bitmap_bytes(const Geometry& geometry, uint64_t virtual_size, const std::vector<BitmapInfo>& bitmaps) {
  uint64_t bytes = 0, directory = 0;
  for (const BitmapInfo& bitmap : bitmaps) {
    const uint64_t clusters = geometry.clusters_for(div_ceil(div_ceil(virtual_size, bitmap.granularity), 8));
    bytes += (clusters << geometry.cluster_bits()) + geometry.cluster_up(clusters * sizeof(be64));
    directory += align_up(kBitmapEntryBytes + bitmap.name.size(), 8);
  }
  return bytes + geometry.cluster_up(directory);
}

Result<MeasureResult> measure_all_tables(const CreateOptions& options, const MeasureRequest& request,
                                         const Geometry& geometry, const FullImage& full) coroutine_fn {
  const Preallocation preallocation = COIMG_TRY(measured_preallocation(options));
  const bool reserves = preallocation == Preallocation::kFalloc || preallocation == Preallocation::kFull;
  const uint64_t metadata = metadata_bytes(geometry, full);
  MeasureResult result{.required = metadata, .fully_allocated = metadata + full.guest_bytes};
  if (reserves || (request.source != nullptr && options.given("backing_file"))) {
    result.required = result.fully_allocated;
  } else if (request.source != nullptr) {
    result.required += COIMG_TRY(co_data_bytes(*request.source, geometry.cluster_size()));
  }
  return result;
}

// --- what a copy makes -----------------------------------------------------------------------------------------------

/// Whether the formulas tell how long the file of a full disk becomes: the refcount table stays the one that every
/// image begins with. Everything is then in one piece.
bool formulas_hold(const CreatePlan& plan, const FullImage& full) {
  return !plan.preallocated && plan.layout.refcount_table_clusters == 1 && full.refcounts.table_clusters == 1;
}

/// By the formulas. Of the disk's last cluster only the subclusters are stored that the disk has.
uint64_t full_bytes(const CreatePlan& plan, const FullImage& full) {
  const Geometry geometry = plan.header.geometry();
  const uint64_t size = plan.header.size;
  if (geometry.external_data()) return metadata_bytes(geometry, full) + size;
  const uint64_t data = geometry.extended_l2() ? align_up(size, geometry.state_unit()) : full.guest_bytes;
  return metadata_bytes(geometry, full) + data;
}

/// A full disk, gone through; nothing where that would take too long, or cannot be, as it is too large for the format.
std::optional<CopySize> full_copy(const CreatePlan& plan, uint64_t write_bytes) {
  std::optional<CopySize> size(plan);
  if (size->full_disk_steps(write_bytes) > kMaxFullDiskSteps || !size->note_full_disk(write_bytes).ok()) size.reset();
  return size;
}

Result<MeasureResult> measure_copy(const CreateOptions& options, const MeasureRequest& request) coroutine_fn {
  BlockNode* const source = request.source;
  CreateOptions complete = options;
  COIMG_TRY(complete.set("size", std::to_string(request.virtual_size)));
  const CreatePlan plan = COIMG_TRY(plan_image(complete));
  const FullImage full = COIMG_TRY(full_image(plan.header.geometry(), request.virtual_size));
  const bool shares = source != nullptr && options.given("backing_file");

  const uint64_t write_bytes = copy_write_bytes(source, plan.header.geometry().cluster_size());
  const std::optional<CopySize> filled =
      shares || !formulas_hold(plan, full) ? full_copy(plan, write_bytes) : std::nullopt;
  MeasureResult result{.fully_allocated = filled ? filled->bytes() : full_bytes(plan, full)};
  CopySize copy = shares && filled ? *filled : CopySize(plan);
  if (shares) {
    result.required = result.fully_allocated;
  } else {
    if (source != nullptr) COIMG_TRY(copy.note_copy(*source, request.method == MeasureMethod::kCopyNonZero));
    result.required = copy.bytes();
    result.fully_allocated = std::max(result.fully_allocated, result.required);
  }
  if (source == nullptr || plan.header.version < 3 || !source->driver().supports_bitmaps()) return result;

  const uint64_t before = copy.bytes();
  const Result<void> noted = copy.note_bitmaps(*source);
  if (noted.ok()) {
    result.bitmaps = copy.bytes() - before;
  } else {
    result.bitmaps_error = noted.error();
  }
  return result;
}

}  // namespace

Result<MeasureResult> measure_image(const CreateOptions& options, const MeasureRequest& request) {
  const Header header = COIMG_TRY(header_for_measure(options));
  COIMG_TRY(measured_preallocation(options));
  COIMG_TRY(check_encryption(options));
  const Geometry geometry = header.geometry();
  const FullImage full = COIMG_TRY(full_image(geometry, request.virtual_size));
  if (request.method != MeasureMethod::kAllTables) return measure_copy(options, request);

  MeasureResult result = COIMG_TRY(measure_all_tables(options, request, geometry, full));
  const BlockNode* const source = request.source;
  if (source != nullptr && header.version >= 3 && source->driver().supports_bitmaps()) {
    result.bitmaps = bitmap_bytes(geometry, request.virtual_size, source->driver().bitmaps());
  }
  return result;
}

}  // namespace coimg::qcow2
