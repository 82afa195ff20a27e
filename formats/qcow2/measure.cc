// How large an image will become.
//
// Format: qcow2, section "measure".
#include "block/util/math.h"
#include "formats/qcow2/create.h"

namespace coimg::qcow2 {

Result<MeasureResult> measure_image(const CreateOptions& options, uint64_t virtual_size,
                                    std::optional<uint64_t> data_bytes) {
  const Geometry geometry = COIMG_TRY(header_for_options(options)).geometry();
  const Preallocation preallocation = COIMG_TRY(preallocation_of(options));
  if (virtual_size > kMaxFileOffset - kSectorSize || geometry.l1_needed(virtual_size) > kMaxL1Entries) {
    return Error(EFBIG, "The image size is too large (try using a larger cluster size)");
  }

  // Whole L2 tables, and whole clusters of L1 table, as they are allocated.
  const uint64_t cluster_size = geometry.cluster_size();
  const uint64_t guest_bytes = align_up(virtual_size, cluster_size);
  const uint64_t l2_tables = div_ceil(guest_bytes, geometry.l2_coverage());
  const uint64_t l1_bytes = align_up(l2_tables * sizeof(be64), cluster_size);
  uint64_t metadata = cluster_size + l2_tables * cluster_size + l1_bytes;
  const RefcountMetadata refcounts = refcount_metadata_for(geometry, (metadata + guest_bytes) / cluster_size);
  metadata += (refcounts.table_clusters + refcounts.blocks) * cluster_size;

  const bool stores_all =
      preallocation == Preallocation::kFalloc || preallocation == Preallocation::kFull || options.given("backing_file");
  return MeasureResult{.required = metadata + (stores_all ? guest_bytes : data_bytes.value_or(0)),
                       .fully_allocated = metadata + guest_bytes,
                       .bitmaps = {}};
}

}  // namespace coimg::qcow2
