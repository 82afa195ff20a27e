// How large an image will become.
//
// Only options that change the size are looked at; what is wrong with the others turns up when the image is made.
//
// Format: qcow2, section "measure".
#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "block/data_size.h"
#include "block/util/math.h"
#include "formats/qcow2/create.h"

namespace coimg::qcow2 {

namespace {

constexpr uint64_t kBitmapEntryBytes = 24;

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

/// What header, tables and refcounts take for a disk of which every cluster is stored; `guest_bytes` are whole
/// clusters.
Result<uint64_t> metadata_bytes(const Geometry& geometry, uint64_t guest_bytes) {
  // Whole L2 tables, and whole clusters of L1 table, as they are allocated.
  const uint64_t cluster_size = geometry.cluster_size();
  const uint64_t l2_tables = geometry.l1_needed(guest_bytes);
  if (l2_tables > kMaxL1Entries) {
    return Error(EFBIG, "The image size is too large (try using a larger cluster size)");
  }
  const uint64_t l1_bytes = align_up(l2_tables * sizeof(be64), cluster_size);
  const uint64_t tables = cluster_size + l2_tables * cluster_size + l1_bytes;
  const RefcountMetadata refcounts = refcount_metadata_for(geometry, (tables + guest_bytes) / cluster_size);
  return tables + (refcounts.table_clusters + refcounts.blocks) * cluster_size;
}

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

}  // namespace

Result<MeasureResult> measure_image(const CreateOptions& options, const MeasureRequest& request) {
  const uint64_t virtual_size = request.virtual_size;
  BlockNode* const source = request.source;
  const Header header = COIMG_TRY(header_for_measure(options));
  const Preallocation preallocation = COIMG_TRY(measured_preallocation(options));
  COIMG_TRY(check_encryption(options));
  const Geometry geometry = header.geometry();
  if (virtual_size > kMaxFileOffset - geometry.cluster_size()) {
    return Error(EFBIG, "The image size is too large (try using a larger cluster size)");
  }
  const uint64_t guest_bytes = geometry.cluster_up(virtual_size);
  const uint64_t metadata = COIMG_TRY(metadata_bytes(geometry, guest_bytes));

  MeasureResult result{.required = metadata, .fully_allocated = metadata + guest_bytes, .bitmaps = std::nullopt};
  if (preallocation == Preallocation::kFalloc || preallocation == Preallocation::kFull) {
    result.required = result.fully_allocated;
  }
  const bool exact = request.method != MeasureMethod::kAllTables;
  if (source != nullptr && options.given("backing_file")) {
    result.required = result.fully_allocated;
  } else if (exact) {
    CreateOptions complete = options;
    COIMG_TRY(complete.set("size", std::to_string(virtual_size)));
    const bool read_data = request.method == MeasureMethod::kCopyNonZero;
    result.required = COIMG_TRY(co_copy_bytes(complete, source, read_data));
    result.fully_allocated = std::max(result.fully_allocated, result.required);
  } else if (source != nullptr && result.required == metadata) {
    result.required += COIMG_TRY(co_data_bytes(*source, geometry.cluster_size()));
  }
  if (source == nullptr) return result;
  if (header.version >= 3 && source->driver().supports_bitmaps()) {
    result.bitmaps = bitmap_bytes(geometry, virtual_size, source->driver().bitmaps());
  }
  return result;
}

}  // namespace coimg::qcow2
