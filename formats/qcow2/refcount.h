// RefcountTable: who uses which cluster of the image file; finds free ones.
//
// Format: qcow2, section "Refcounts". refcount.cc looks up, changes and allocates; refcount_grow.cc makes new blocks
// and larger tables.
#pragma once

#include <cstdint>
#include <vector>

#include "block/node.h"
#include "block/util/offsets.h"
#include "block/util/result.h"
#include "coroutine/co_mutex.h"
#include "formats/qcow2/format.h"
#include "formats/qcow2/metadata_cache.h"

namespace coimg::qcow2 {

/// Told by the table when it has to switch to a new table: stores offset and clusters in the header, durably.
class RefcountTableOwner {
 public:
  virtual ~RefcountTableOwner() = default;
  virtual Result<void> store_refcount_table_location(HostOffset offset, uint32_t clusters) coroutine_fn = 0;
  /// Dirty L2 tables go to disk: called before a new refcount block becomes visible (specs 5.5).
  virtual Result<void> write_back_l2_tables() coroutine_fn = 0;
};

/// The two-level refcount structure. Lock order: Qcow2::lock_, then lock_ here, then the cache's own.
class RefcountTable {
 public:
  RefcountTable(BlockNode& file, Geometry geometry, MetadataCache& blocks, RefcountTableOwner& owner);

  /// Reads the table. `clusters` is bounded by the header's validation.
  Result<void> load(HostOffset offset, uint32_t clusters) coroutine_fn CO_EXCLUDES(lock_);

  Result<uint64_t> refcount(HostCluster cluster) coroutine_fn CO_EXCLUDES(lock_);

  /// Finds `count` consecutive free host clusters and sets their refcounts to one. See the crash rule at the
  /// definition.
  Result<HostCluster> allocate(ClusterCount count) coroutine_fn CO_EXCLUDES(lock_);
  /// Up to `count` free clusters exactly at `at`, as many as are free in a row (possibly none), refcounts set to one.
  Result<ClusterCount> allocate_at(HostCluster at, ClusterCount count) coroutine_fn CO_EXCLUDES(lock_);
  /// Room for a compressed stream of `bytes` (specs 7.5); raises the refcount of each cluster that it touches.
  Result<HostOffset> allocate_bytes(uint64_t bytes) coroutine_fn CO_EXCLUDES(lock_);

  /// Adds one reference to / takes one from each cluster. All or nothing.
  Result<void> increment(HostCluster first, ClusterCount count) coroutine_fn CO_EXCLUDES(lock_);
  Result<void> decrement(HostCluster first, ClusterCount count) coroutine_fn CO_EXCLUDES(lock_);
  /// decrement() for clean-up paths: a failure is logged and leaks.
  void free_best_effort(HostCluster first, ClusterCount count) coroutine_fn CO_EXCLUDES(lock_);

  [[nodiscard]] HostOffset table_offset() const { return table_offset_; }
  [[nodiscard]] uint32_t table_clusters() const { return table_clusters_; }
  /// Raw entries; for check and for the overlap guard.
  [[nodiscard]] const std::vector<uint64_t>& entries() const { return entries_; }
  [[nodiscard]] MetadataCache& blocks() { return blocks_; }

 private:
  BlockNode& file_;
  const Geometry geometry_;
  MetadataCache& blocks_;
  RefcountTableOwner& owner_;

  mutable CoMutex lock_;
  std::vector<uint64_t> entries_;  ///< the table; changed only under lock_
  HostOffset table_offset_;
  uint32_t table_clusters_ = 0;
  HostCluster free_hint_ CO_GUARDED_BY(lock_);         ///< no free cluster lies below
  HostOffset compressed_cursor_ CO_GUARDED_BY(lock_);  ///< byte behind the last compressed stream; 0 for none
};

}  // namespace coimg::qcow2
