// How long an image's file becomes while clusters are allocated in it. Pure.
//
// Format: qcow2, sections "Allocation search", "Allocating a refcount block", "Growing the refcount table".
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "block/util/offsets.h"
#include "block/util/result.h"
#include "formats/qcow2/cluster_set.h"
#include "formats/qcow2/format.h"
#include "formats/qcow2/fresh_layout.h"
#include "formats/qcow2/refcount_scan.h"

namespace coimg::qcow2 {

/// Repeats what RefcountTable does for the same requests, without files and without refcounts: nothing is ever freed
/// but refcount tables that were too small. Memory: a byte for each refcount block, and what lies apart.
class FileGrowth {
 public:
  FileGrowth(const Geometry& geometry, const FreshLayout& layout);

  /// Like RefcountTable::allocate(). Errors: EFBIG.
  Result<HostCluster> allocate(ClusterCount count);
  /// Like RefcountTable::allocate_at().
  Result<ClusterCount> allocate_at(HostCluster at, ClusterCount count);

  /// The file reaches to `end` at least. For what is not stored whole: allocating alone does not lengthen a file.
  void extend_to(HostOffset end) { file_bytes_ = std::max(file_bytes_, end.v); }
  [[nodiscard]] uint64_t file_bytes() const { return file_bytes_; }

 private:
  [[nodiscard]] HostCluster find_free_run(ClusterCount count) const;
  [[nodiscard]] uint64_t slot_of(HostCluster cluster) const { return cluster.v / geometry_.refcounts_per_block(); }
  [[nodiscard]] bool has_block(uint64_t slot) const { return slot < blocks_.size() && blocks_[slot]; }
  Result<bool> ensure_blocks(HostCluster first, ClusterCount count);
  Result<void> add_block(uint64_t slot);
  Result<void> grow_table(uint64_t slot);
  void use_whole(HostCluster first, ClusterCount count);

  const Geometry geometry_;
  ClusterSet used_;
  std::vector<bool> blocks_;  ///< which slots of the refcount table have a block
  uint64_t table_entries_;
  ClusterRun table_;
  std::array<HostCluster, kFreeHints> free_hints_{};  ///< as in RefcountTable
  uint64_t file_bytes_;
};

}  // namespace coimg::qcow2
