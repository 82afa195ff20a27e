// RefcountTable: who uses which cluster of the image file; finds free ones.
//
// Format: qcow2, section "Refcounts". refcount.cc looks up, changes and allocates; refcount_grow.cc makes new blocks
// and larger tables, and drops what is no longer needed.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "block/node.h"
#include "block/util/offsets.h"
#include "block/util/result.h"
#include "coroutine/co_mutex.h"
#include "formats/qcow2/cluster_set.h"
#include "formats/qcow2/format.h"
#include "formats/qcow2/metadata_cache.h"
#include "formats/qcow2/refcount_scan.h"

namespace coimg::qcow2 {

/// What the table needs from the image that it belongs to.
class RefcountTableOwner {
 public:
  virtual ~RefcountTableOwner() = default;
  /// The table is about to move: stores offset and clusters in the header, durably.
  virtual Result<void> store_refcount_table_location(HostOffset offset, uint32_t clusters) coroutine_fn = 0;
  /// Dirty L2 tables go to disk: called before a new refcount block becomes visible (specs 5.5).
  virtual Result<void> write_back_l2_tables() coroutine_fn = 0;
  /// The refcounts contradict the image. Returns the error for the request that found out.
  virtual Error refcounts_damaged(std::string reason) { return {EIO, std::move(reason)}; }
  /// [offset, offset + bytes) has become (`in_use`) or is no longer a part of the refcount structures.
  virtual void refcount_metadata_changed(HostOffset offset, uint64_t bytes, bool in_use) {
    (void)offset, (void)bytes, (void)in_use;
  }
  /// load() has replaced everything that was known.
  virtual void refcount_table_loaded() {}
};

/// What is to happen to the space of clusters that become free.
enum class FreedSpace { kKeep, kDiscard };

/// The two-level refcount structure.
///
/// A cluster that becomes free while the L2 entry that referred to it may still be on disk is not handed out before
/// that entry is gone for good: after a crash the old entry must not show what somebody else has stored there since.
///
/// Locks: Qcow2::lock_, then lock_ here, then the cache's own.
class RefcountTable {
 public:
  RefcountTable(BlockNode& file, Geometry geometry, MetadataCache& blocks, RefcountTableOwner& owner);

  /// Reads the table. `clusters` is bounded by the header's validation. Errors: what reading it gave.
  Result<void> load(HostOffset offset, uint32_t clusters) coroutine_fn CO_EXCLUDES(lock_);

  Result<uint64_t> refcount(HostCluster cluster) coroutine_fn CO_EXCLUDES(lock_);

  /// Finds `count` consecutive free host clusters and sets their refcounts to one. See the crash rule at the
  /// definition.
  Result<HostCluster> allocate(ClusterCount count) coroutine_fn CO_EXCLUDES(lock_);
  /// Up to `count` free clusters exactly at `at`, as many as are free in a row (possibly none), refcounts set to one.
  Result<ClusterCount> allocate_at(HostCluster at, ClusterCount count) coroutine_fn CO_EXCLUDES(lock_);
  /// Room for compressed streams of the given lengths, each from 1 to the cluster size, one behind the other where the
  /// format lets them (specs 7.5); raises the refcount of each cluster that a stream touches, once a stream.
  /// Errors: EFBIG past what a compressed entry can address; all or nothing, as for allocate().
  Result<std::vector<HostOffset>> allocate_streams(std::span<const uint64_t> lengths) coroutine_fn CO_EXCLUDES(lock_);
  /// The same for one stream.
  Result<HostOffset> allocate_bytes(uint64_t bytes) coroutine_fn CO_EXCLUDES(lock_);

  /// Adds one reference to / takes one from each cluster. All or nothing.
  /// Errors: EINVAL when a refcount is at its maximum, EIO (reported to the owner) when it is zero already.
  /// Crash: before decrement() the last reference must be gone from disk, or blocks() must depend on the cache that
  /// holds it. Space freed with kDiscard is given back to the host by reclaim_freed().
  Result<void> increment(HostCluster first, ClusterCount count) coroutine_fn CO_EXCLUDES(lock_);
  Result<void> decrement(HostCluster first, ClusterCount count, FreedSpace space = FreedSpace::kKeep)
      coroutine_fn CO_EXCLUDES(lock_);
  /// decrement() for clusters that no durable entry has ever referred to; a failure is logged and leaks.
  void free_best_effort(HostCluster first, ClusterCount count) coroutine_fn CO_EXCLUDES(lock_);

  /// Discards the space of freed clusters, once nothing on disk refers to them. To be called after a flush.
  /// A host that cannot discard is no error.
  void reclaim_freed() coroutine_fn CO_EXCLUDES(lock_);

  /// The cluster behind the last one that is in use.
  Result<HostCluster> end_of_used() coroutine_fn CO_EXCLUDES(lock_);
  /// Whether `wanted` or more of the clusters below `end` are in use, according to the file: what is not written back
  /// yet does not matter for an estimate. Reads only as far as it takes to know.
  /// Errors: what reading a block gave. Blocks at an impossible place are not for this function.
  Result<bool> has_used(uint64_t wanted, HostCluster end) coroutine_fn CO_EXCLUDES(lock_);
  /// Frees refcount blocks that count nothing but themselves. The caller has written back everything.
  /// Crash: a leak at most.
  Result<void> drop_empty_blocks() coroutine_fn CO_EXCLUDES(lock_);

  /// The first table entry for clusters below `end` that refers to an impossible place, and the words for it.
  [[nodiscard]] std::optional<uint64_t> first_unaligned_block(HostCluster end) const;
  [[nodiscard]] std::string unaligned_block_message(uint64_t slot) const;

  [[nodiscard]] HostOffset table_offset() const { return table_offset_; }
  [[nodiscard]] uint32_t table_clusters() const { return table_clusters_; }
  /// Raw entries; for check and for the overlap guard.
  [[nodiscard]] const std::vector<uint64_t>& entries() const { return entries_; }
  [[nodiscard]] MetadataCache& blocks() { return blocks_; }

 private:
  enum class Change { kIncrement, kDecrement };
  /// How much refcounts change by, and what becomes of clusters that reach zero.
  struct Update {
    Change change;
    bool reusable_at_once = false;  ///< of kDecrement
    FreedSpace space = FreedSpace::kKeep;
  };
  /// A piece of a refcount block: the refcounts of clusters from the one asked for to the end of the slice.
  struct Window {
    MetadataCache::Pin pin;  ///< empty: there is no block, and all `count` clusters are free
    uint64_t index = 0;      ///< of the first cluster's refcount in the slice
    uint64_t count = 0;
  };

  // refcount.cc
  Result<Window> window_locked(HostCluster cluster) coroutine_fn CO_REQUIRES(lock_);
  Result<uint64_t> refcount_locked(HostCluster cluster) coroutine_fn CO_REQUIRES(lock_);
  Result<HostCluster> next_free_locked(HostCluster from, HostCluster limit) coroutine_fn CO_REQUIRES(lock_);
  Result<ClusterCount> free_run_length_locked(HostCluster first, ClusterCount most) coroutine_fn CO_REQUIRES(lock_);
  Result<HostCluster> find_free_run_locked(ClusterCount count, HostCluster limit) coroutine_fn CO_REQUIRES(lock_);
  Result<HostCluster> allocate_locked(ClusterCount count, HostCluster limit) coroutine_fn CO_REQUIRES(lock_);
  Result<HostOffset> allocate_stream_locked(uint64_t bytes) coroutine_fn CO_REQUIRES(lock_);
  Result<void> change_locked(HostCluster first, ClusterCount count, Update update) coroutine_fn CO_REQUIRES(lock_);
  Result<uint64_t> change_window_locked(HostCluster first, uint64_t count, Update update)
      coroutine_fn CO_REQUIRES(lock_);
  void undo_best_effort_locked(HostCluster first, ClusterCount count, Update update) coroutine_fn CO_REQUIRES(lock_);
  void note_used_locked(HostCluster first, ClusterCount count) CO_REQUIRES(lock_);
  void note_freed_locked(HostCluster cluster, Update update) CO_REQUIRES(lock_);
  void release_settled_locked() CO_REQUIRES(lock_);
  [[nodiscard]] ClusterRun stream_clusters(HostOffset offset, uint64_t bytes) const;
  [[nodiscard]] HostCluster stream_limit() const;

  // refcount_grow.cc
  Result<bool> ensure_blocks_locked(HostCluster first, ClusterCount count) coroutine_fn CO_REQUIRES(lock_);
  Result<void> add_block_locked(uint64_t slot) coroutine_fn CO_REQUIRES(lock_);
  Result<void> create_block_locked(HostOffset block) coroutine_fn CO_REQUIRES(lock_);
  Result<void> write_and_flush_blocks_locked() coroutine_fn CO_REQUIRES(lock_);
  Result<void> store_slot_locked(uint64_t slot, HostOffset block) coroutine_fn CO_REQUIRES(lock_);
  Result<void> store_table_locked(std::span<const uint64_t> entries, std::span<const uint64_t> stored)
      coroutine_fn CO_REQUIRES(lock_);
  Result<void> grow_table_locked(uint64_t slot, HostOffset block) coroutine_fn CO_REQUIRES(lock_);
  Result<bool> block_is_empty_locked(uint64_t slot, const ClusterSet& dropped) coroutine_fn CO_REQUIRES(lock_);
  [[nodiscard]] HostOffset block_offset(uint64_t slot) const {
    return HostOffset(slot < entries_.size() ? entries_[slot] & kRefcountTableOffsetMask : 0);
  }
  [[nodiscard]] uint64_t slot_of(HostCluster cluster) const { return cluster.v / geometry_.refcounts_per_block(); }

  BlockNode& file_;
  const Geometry geometry_;
  MetadataCache& blocks_;
  RefcountTableOwner& owner_;

  mutable CoMutex lock_;
  std::vector<uint64_t> entries_;  ///< the table; changed only under lock_
  HostOffset table_offset_;
  uint32_t table_clusters_ = 0;

  /// Where the search for 2^i or more clusters (less than 2^(i+1)) starts. For a single cluster this is exact: no free
  /// one lies below. Larger runs may have passed by holes that were too small for them.
  std::array<HostCluster, kFreeHints> free_hints_ CO_GUARDED_BY(lock_){};
  HostOffset compressed_cursor_ CO_GUARDED_BY(lock_);  ///< byte behind the last compressed stream; 0 for none
  ClusterSet unsettled_ CO_GUARDED_BY(lock_);          ///< free, but the disk may still refer to them
  ClusterSet to_discard_ CO_GUARDED_BY(lock_);         ///< free, their space is to be given back
};

}  // namespace coimg::qcow2
