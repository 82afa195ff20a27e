// Qcow2: an open qcow2 image.
//
// Which file does what: header parses and encodes the header cluster; qcow2.cc opens, flushes and closes; mapping.cc
// looks guest ranges up and read.cc reads them; cluster_alloc.cc is the write side: allocation, copy-on-write, linking;
// discard.cc zeroes and frees guest clusters; resize.cc grows and shrinks; refcount counts clusters; check.cc and
// repair.cc find and fix damage; create.cc makes new images; info.cc describes.
//
// Format: qcow2, specification sections named in each file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "block/driver.h"
#include "block/node.h"
#include "block/request_tracker.h"
#include "coroutine/co_rwlock.h"
#include "formats/qcow2/bitmap.h"
#include "formats/qcow2/format.h"
#include "formats/qcow2/header.h"
#include "formats/qcow2/metadata_cache.h"
#include "formats/qcow2/refcount.h"
#include "formats/qcow2/snapshot.h"

namespace coimg::qcow2 {

/// A guest range that has one answer.
struct Extent {
  ClusterType type = ClusterType::kUnallocated;
  uint64_t bytes = 0;              ///< from the guest offset asked for; never across a compressed cluster
  HostOffset host;                 ///< kNormal, kZeroAllocated: of the first byte
  L2Entry entry;                   ///< of the first cluster; for kCompressed the stream's place
  bool writable_in_place = false;  ///< kNormal with COPIED on L1 and L2 entry, for all clusters of the range
};

/// An open qcow2 image. Every public call comes from one AioContext.
///
/// Locks, in the order in which they are taken:
///   in_flight_   guest ranges with data I/O under way. Reads and in-place writes are shared; allocating writes,
///   zeroing and
///                discarding are exclusive over whole clusters. So a mapping that was looked up stays valid while its
///                data moves, although lock_ is not held over guest data I/O.
///   lock_        the mapping: L1 table, L2 entries, header. Shared to look up, exclusive to change.
///   RefcountTable's own lock, then the caches' own.
class Qcow2 final : public BlockDriver, private RefcountTableOwner {
 public:
  /// Opens an image in `args.file`. Errors: the validation table's words, exit state: nothing written.
  static Result<std::unique_ptr<Qcow2>> open(const DriverType& type, DriverType::OpenArgs args) coroutine_fn;
  ~Qcow2() override;

  // BlockDriver; contracts there.
  const DriverType& type() const override { return type_; }
  uint64_t length() const override { return virtual_size_; }
  BlockLimits limits() const override;
  Result<void> close() coroutine_fn override;
  Result<void> preadv(uint64_t offset, const IoVector& iov) coroutine_fn override;
  Result<void> pwritev(uint64_t offset, const IoVector& iov, const WriteOptions& options) coroutine_fn override;
  Result<void> pwrite_zeroes(uint64_t offset, uint64_t bytes, const ZeroOptions& options) coroutine_fn override;
  Result<void> pdiscard(uint64_t offset, uint64_t bytes) coroutine_fn override;
  Result<void> pwrite_compressed(uint64_t offset, const IoVector& iov, const WriteOptions& options)
      coroutine_fn override;
  Result<void> flush() coroutine_fn override;
  Result<BlockStatus> block_status(uint64_t offset, uint64_t bytes, bool want_zero) coroutine_fn override;
  Result<void> truncate(uint64_t new_length, Preallocation preallocation) coroutine_fn override;
  Result<ImageInfo> info() coroutine_fn override;
  Result<CheckResult> check(const CheckOptions& options) coroutine_fn override;
  bool created_reads_as_zeros() const override;

  /// The node of the backing file, set by the block layer after open; null for none.
  [[nodiscard]] BlockNode* backing() const;

 private:
  friend class Checker;
  friend class Repairer;

  Qcow2(const DriverType& type, DriverType::OpenArgs args, Header header);

  // --- qcow2.cc: life cycle -------------------------------------------------------------------------------------
  Result<void> load_tables() coroutine_fn;
  Result<void> prepare_for_writing() coroutine_fn;  ///< autoclear bits, dirty bit repair, corrupt bit refusal
  Result<void> flush_locked() coroutine_fn CO_REQUIRES(lock_);
  Result<void> rewrite_header_locked() coroutine_fn CO_REQUIRES(lock_);
  Result<void> store_incompatible_features_locked(uint64_t features) coroutine_fn CO_REQUIRES(lock_);
  Result<void> store_refcount_table_location(HostOffset offset, uint32_t clusters) coroutine_fn override;
  Result<void> write_back_l2_tables() coroutine_fn override;
  /// Reports damage found in use. On a writable image sets the corrupt bit and fails all further requests; returns EIO.
  Error corruption(std::string reason, bool fatal);

  // --- mapping.cc: look up
  // --------------------------------------------------------------------------------------------
  /// Errors: EIO for damaged entries (reported through corruption()), and what reading the L2 table gave.
  Result<Extent> map_locked(GuestOffset offset, uint64_t max_bytes) coroutine_fn CO_REQUIRES_SHARED(lock_);
  Result<MetadataCache::Pin> load_l2_slice_locked(HostOffset l2_table, uint64_t l2_index)
      coroutine_fn CO_REQUIRES_SHARED(lock_);

  // --- read.cc
  // -----------------------------------------------------------------------------------------------------------
  Result<void> read_extent(GuestOffset offset, const Extent& extent, const IoVector& iov) coroutine_fn;
  Result<void> read_backing(GuestOffset offset, const IoVector& iov) coroutine_fn;
  Result<void> read_compressed(GuestOffset offset, L2Entry entry, const IoVector& iov) coroutine_fn;

  // Constant after open.
  const DriverType& type_;
  BlockNode& file_;
  BlockNode* const node_;  ///< the node that this driver belongs to, for its backing child
  const std::string filename_;
  const OpenFlags flags_;
  const Geometry geometry_;

  RequestTracker in_flight_;
  CoRwlock lock_;

  Header header_ CO_GUARDED_BY(lock_);
  std::vector<L1Entry> l1_table_ CO_GUARDED_BY(lock_);
  std::vector<Snapshot> snapshots_ CO_GUARDED_BY(lock_);
  std::vector<BitmapEntry> bitmaps_ CO_GUARDED_BY(lock_);

  std::unique_ptr<MetadataCache> l2_cache_;        ///< entries change under lock_ held exclusively
  std::unique_ptr<MetadataCache> refcount_cache_;  ///< entries change under refcounts_'s lock
  std::unique_ptr<RefcountTable> refcounts_;

  uint64_t virtual_size_ = 0;  ///< changes in truncate() only, when nothing is in flight
  bool failed_ = false;        ///< damage was found while writing: every further request gets EIO
};

}  // namespace coimg::qcow2
