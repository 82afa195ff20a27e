// Qcow2: an open qcow2 image.
//
// Which file does what: header parses and encodes the header cluster; qcow2.cc opens, flushes and closes; mapping.cc
// looks guest ranges up, read.cc reads them and block_status.cc tells where they lie; cluster_alloc.cc is the write
// side: allocation, copy-on-write, linking; discard.cc zeroes and frees guest clusters; data_file.cc looks after
// external data files; resize.cc grows and shrinks, preallocate.cc fills new space; backing.cc changes what lies below;
// amend.cc, refcount_width.cc and downgrade.cc change creation options; snapshot_change.cc takes and applies snapshots;
// bitmaps.h keeps dirty bitmaps; refcount counts clusters; check.cc and repair.cc find and fix damage; create.cc makes
// new images; info.cc describes.
//
// Format: qcow2, specification sections named in each file.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "block/driver.h"
#include "block/node.h"
#include "block/request_tracker.h"
#include "coroutine/co_rwlock.h"
#include "formats/qcow2/bitmaps.h"
#include "formats/qcow2/cluster_alloc.h"
#include "formats/qcow2/cluster_counts.h"
#include "formats/qcow2/cluster_set.h"
#include "formats/qcow2/extent.h"
#include "formats/qcow2/format.h"
#include "formats/qcow2/header.h"
#include "formats/qcow2/metadata_cache.h"
#include "formats/qcow2/refcount.h"
#include "formats/qcow2/runtime_options.h"
#include "formats/qcow2/snapshot.h"

namespace coimg::qcow2 {

struct CompressedRun;
struct DecodedCluster;

/// An open qcow2 image. Every public call comes from one AioContext.
///
/// Locks, in the order in which they are taken:
///   in_flight_   guest ranges with data I/O under way. Reads and in-place writes are shared; what allocates, zeroes or
///                discards has whole clusters exclusively. So a mapping that was looked up stays valid while its data
///                moves, although lock_ is not held over guest data I/O.
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
  Result<void> preadv_vm_state(uint64_t offset, const IoVector& iov) coroutine_fn override;
  Result<void> pwritev_vm_state(uint64_t offset, const IoVector& iov) coroutine_fn override;
  Result<CheckResult> check(const CheckOptions& options) coroutine_fn override;
  Result<void> create_snapshot(const std::string& name) coroutine_fn override;
  Result<void> apply_snapshot(const SnapshotSelector& selector) coroutine_fn override;
  Result<void> delete_snapshot(const SnapshotSelector& selector) coroutine_fn override;
  Result<void> show_snapshot(const SnapshotSelector& selector) coroutine_fn override;
  bool supports_bitmaps() const override;
  std::vector<BitmapInfo> bitmaps() const override;
  Result<void> add_bitmap(const BitmapInfo& bitmap) coroutine_fn override;
  Result<void> remove_bitmap(const std::string& name) coroutine_fn override;
  Result<void> clear_bitmap(const std::string& name) coroutine_fn override;
  Result<void> set_bitmap_recording(const std::string& name, bool recording) coroutine_fn override;
  Result<void> merge_bitmap(const std::string& name, BlockDriver& source, const std::string& source_name)
      coroutine_fn override;
  Result<void> visit_bitmap(const std::string& name, const DirtyVisitor& visitor) coroutine_fn override;
  Result<void> change_backing_file(const std::string& name, const std::string& format) coroutine_fn override;
  Result<void> make_empty() coroutine_fn override;
  Result<void> amend(const CreateOptions& options, const ProgressCallback& on_progress) coroutine_fn override;
  bool created_reads_as_zeros() const override;

  /// The node of the backing file, set by the block layer after open; null for none.
  [[nodiscard]] BlockNode* backing() const;

 private:
  friend class Bitmaps;
  friend class Checker;
  friend class Repairer;

  Qcow2(const DriverType& type, DriverType::OpenArgs args, BlockNode& data, Header header,
        const RuntimeOptions& options);

  // --- qcow2.cc: life cycle -------------------------------------------------------------------------------------
  void make_caches();
  Result<void> load_tables() coroutine_fn;
  Result<void> load_l1_table_locked() coroutine_fn CO_REQUIRES(lock_);
  Result<void> prepare_for_writing() coroutine_fn;  ///< autoclear bits, dirty bit repair, corrupt bit refusal
  Result<void> drop_unknown_metadata_locked() coroutine_fn CO_REQUIRES(lock_);
  Result<void> repair_dirty() coroutine_fn CO_EXCLUDES(lock_);
  /// Writes back what is dirty, flushes the file, and gives freed space back.
  Result<void> flush_locked() coroutine_fn CO_REQUIRES(lock_);
  /// The same without the refcounts: for an image that is marked as dirty.
  Result<void> flush_lazily_locked() coroutine_fn CO_REQUIRES(lock_);
  bool refcounts_are_lazy_locked() const CO_REQUIRES_SHARED(lock_);
  Result<void> mark_dirty_locked() coroutine_fn CO_REQUIRES(lock_);
  Result<void> clear_dirty_locked() coroutine_fn CO_REQUIRES(lock_);
  Result<void> rewrite_header_locked() coroutine_fn CO_REQUIRES(lock_);
  Result<void> store_incompatible_features_locked(uint64_t features) coroutine_fn CO_REQUIRES(lock_);
  Result<void> store_autoclear_features_locked(uint64_t features) coroutine_fn CO_REQUIRES(lock_);
  Result<void> store_refcount_table_location(HostOffset offset, uint32_t clusters) coroutine_fn override;
  Result<void> write_back_l2_tables() coroutine_fn override;
  Result<void> store_pending_corrupt_mark_locked() coroutine_fn CO_REQUIRES(lock_);
  /// Reports damage found in use, once. Fatal damage of a writable image fails all further requests; the corrupt bit is
  /// stored at the end of the DamageScope, or by the next flush() or close(). Returns EIO.
  Error corruption(std::string reason, bool fatal);
  /// A request that may find damage: it stores the corrupt bit before it returns, when it has let go of the locks.
  class DamageScope {
   public:
    explicit DamageScope(Qcow2& image) coroutine_fn : image_(image) {}
    ~DamageScope() coroutine_fn {
      if (image_.corrupt_mark_pending_) image_.store_pending_corrupt_mark();
    }
    DamageScope(const DamageScope&) = delete;
    DamageScope& operator=(const DamageScope&) = delete;

   private:
    Qcow2& image_;
  };
  void store_pending_corrupt_mark() coroutine_fn CO_EXCLUDES(lock_);

  // --- mapping.cc: look up -----------------------------------------------------------------------------------------
  /// Errors: EIO for damaged entries (reported through corruption()), and what reading the L2 table gave.
  Result<Extent> map_locked(GuestOffset offset, uint64_t max_bytes) coroutine_fn CO_REQUIRES_SHARED(lock_);
  /// A part of an L2 table, held in memory; which one: the part that holds an index.
  struct L2Slice {
    MetadataCache::Pin pin;
    L2Entries entries;
    size_t index;  ///< of the entry that was asked for
  };
  Result<L2Slice> load_l2_slice_locked(HostOffset l2_table, uint64_t l2_index) coroutine_fn CO_REQUIRES_SHARED(lock_);
  void extend_standard(Extent& extent, GuestOffset offset, const L2Slice& slice) const;
  void extend_extended(Extent& extent, GuestOffset offset, const L2Slice& slice) const;
  /// Errors: EIO, reported, for an entry that may not be followed.
  Result<void> check_entry_locked(GuestOffset offset, L2Entry entry) CO_REQUIRES_SHARED(lock_);

  // --- vm_state.cc ---------------------------------------------------------------------------------------------------
  Result<GuestOffset> locate_vm_state(uint64_t offset, uint64_t bytes) const;
  Result<void> read_vm_state(GuestOffset offset, const IoVector& iov) coroutine_fn;

  // --- read.cc -----------------------------------------------------------------------------------------------------
  Result<void> read_extent(GuestOffset offset, const Extent& extent, const IoVector& iov) coroutine_fn;
  Result<void> read_backing(GuestOffset offset, const IoVector& iov) coroutine_fn;
  Result<void> read_data(HostOffset offset, const IoVector& iov) coroutine_fn;

  // --- read_compressed.cc ------------------------------------------------------------------------------------------
  Result<CompressedRun> find_compressed_run_locked(GuestOffset first, const Extent& extent, uint64_t max_bytes)
      coroutine_fn CO_REQUIRES_SHARED(lock_);
  Result<void> read_compressed_run(GuestOffset first, const CompressedRun& run, const IoVector& iov) coroutine_fn;
  Result<void> read_compressed_apart(GuestOffset first, const CompressedRun& run, const IoVector& iov) coroutine_fn;
  Result<void> read_compressed(GuestOffset offset, L2Entry entry, const IoVector& iov) coroutine_fn;

  // --- block_status.cc ---------------------------------------------------------------------------------------------
  Result<bool> file_has_holes() coroutine_fn CO_EXCLUDES(lock_);
  Result<bool> find_holes() coroutine_fn CO_EXCLUDES(lock_);

  // --- cluster_alloc.cc: L2 tables and entries for writing ---------------------------------------------------------
  /// The L2 table that maps `offset`, made or unshared when needed: its entries may be changed afterwards.
  Result<HostOffset> ensure_l2_table_locked(GuestOffset offset) coroutine_fn CO_REQUIRES(lock_);
  Result<void> fill_l2_table_locked(HostOffset table, L1Entry copy_from) coroutine_fn CO_REQUIRES(lock_);
  Result<void> store_l1_entry_locked(uint64_t index, L1Entry entry) coroutine_fn CO_REQUIRES(lock_);

  /// The new entry of the `index`th cluster of a range.
  using EntryUpdate = std::function<L2Entry(uint64_t index, L2Entry old)>;
  /// Changes the entries of up to `clusters` guest clusters from `first` on: those in the first one's slice, all or
  /// none. Returns how many. What the old entries referred to and the new ones do not is added to `dropped`.
  Result<uint64_t> update_entries_locked(GuestOffset first, uint64_t clusters, const EntryUpdate& update,
                                         DroppedReferences& dropped) coroutine_fn CO_REQUIRES(lock_);
  /// Called before entries refer to new clusters: the refcounts go to disk first, or the image says that they lag.
  Result<void> order_refcounts_locked() coroutine_fn CO_REQUIRES(lock_);
  /// Lowers refcounts, to take effect on disk after the L2 entries that were changed.
  Result<void> drop_references(const DroppedReferences& dropped, FreedSpace space) coroutine_fn CO_EXCLUDES(lock_);

  /// Host clusters for `clusters` guest clusters from `first` on, appended to the plan in as few runs as possible.
  Result<void> allocate_runs_locked(GuestOffset first, uint64_t clusters, WritePlan& plan)
      coroutine_fn CO_REQUIRES(lock_);
  /// Frees what was allocated and not linked.
  void abandon_plan(const WritePlan& plan) coroutine_fn;
  /// Links the runs that need it, from the front; what has been linked is taken out of the plan.
  Result<void> link_plan_locked(WritePlan& plan, DroppedReferences& dropped) coroutine_fn CO_REQUIRES(lock_);

  // --- write.cc -----------------------------------------------------------------------------------------------------
  Result<void> check_usable() const;
  Result<bool> map_in_place(GuestOffset offset, uint64_t bytes, std::vector<Extent>& extents) coroutine_fn;
  /// Locks: the caller has all clusters that the range touches in flight, exclusively.
  Result<void> write_allocating(GuestOffset offset, const IoVector& iov, PlacementOrder::Ticket* ticket)
      coroutine_fn CO_EXCLUDES(lock_);
  Result<void> write_zero_bytes(GuestOffset offset, uint64_t bytes) coroutine_fn CO_EXCLUDES(lock_);
  Result<WritePlan> plan_write_locked(GuestOffset offset, uint64_t bytes) coroutine_fn CO_REQUIRES(lock_);
  Result<L2Entry> entry_locked(GuestOffset offset) coroutine_fn CO_REQUIRES(lock_);
  Result<GuestOffset> stored_start_locked(GuestOffset offset) coroutine_fn CO_REQUIRES(lock_);
  Result<GuestOffset> stored_end_locked(GuestOffset end) coroutine_fn CO_REQUIRES(lock_);
  Result<std::vector<Extent>> map_range_locked(GuestOffset from, GuestOffset to) coroutine_fn CO_REQUIRES(lock_);
  [[nodiscard]] uint32_t touched_subclusters(const WritePlan& plan, GuestOffset cluster) const;
  Result<void> extend_plan_locked(GuestOffset first, GuestOffset end, WritePlan& plan) coroutine_fn CO_REQUIRES(lock_);
  Result<void> read_extents(GuestOffset from, const std::vector<Extent>& extents, std::span<std::byte> memory)
      coroutine_fn;
  Result<void> write_planned(const WritePlan& plan, GuestOffset offset, const IoVector& iov) coroutine_fn;
  Result<void> link_and_release(WritePlan plan) coroutine_fn CO_EXCLUDES(lock_);

  // --- write_compressed.cc -----------------------------------------------------------------------------------------
  struct CompressedRequest;
  Result<void> compress(CompressedRequest& request, const IoVector& iov, unsigned level) coroutine_fn;
  Result<void> place_compressed_locked(CompressedRequest& request) coroutine_fn CO_REQUIRES(lock_);
  Result<void> write_streams(const CompressedRequest& request) coroutine_fn;
  Result<void> link_compressed_locked(CompressedRequest& request, DroppedReferences& dropped)
      coroutine_fn CO_REQUIRES(lock_);
  void abandon_compressed(const CompressedRequest& request) coroutine_fn;

  // --- discard.cc --------------------------------------------------------------------------------------------------
  enum class MissingTables { kSkip, kMake };
  /// Changes all entries of a range of whole clusters, a slice at a time. Locks: as write_allocating().
  Result<void> rewrite_entries(GuestOffset first, uint64_t clusters, MissingTables missing, FreedSpace space,
                               const EntryUpdate& update) coroutine_fn CO_EXCLUDES(lock_);
  Result<void> zero_clusters(GuestOffset first, uint64_t clusters, bool may_unmap) coroutine_fn CO_EXCLUDES(lock_);
  Result<void> discard_clusters(GuestOffset first, uint64_t clusters, FreedSpace space) coroutine_fn CO_EXCLUDES(lock_);
  Result<void> zero_inside_cluster(GuestOffset from, GuestOffset to, bool may_write) coroutine_fn CO_EXCLUDES(lock_);
  Result<bool> zero_whole_unit(GuestOffset offset, uint64_t bytes, bool whole) coroutine_fn CO_EXCLUDES(lock_);
  Result<bool> backing_is_zero_around(GuestOffset offset, uint64_t bytes) coroutine_fn;
  bool has_backing_locked() const CO_REQUIRES_SHARED(lock_);

  // --- data_file.cc: what a data file that is a raw image needs, and its length --------------------------------------
  /// Called before entries of the range begin to say that it is zeros.
  Result<void> zero_raw_data_file(GuestOffset offset, uint64_t bytes, bool may_unmap) coroutine_fn;
  /// Called when no entry refers to the range any more.
  Result<void> discard_data_file(GuestOffset offset, uint64_t bytes) coroutine_fn;
  Result<void> grow_data_file(uint64_t new_length, Preallocation preallocation) coroutine_fn;

  Result<void> drop_all_clusters_locked() coroutine_fn CO_REQUIRES(lock_);  // backing.cc

  // --- resize.cc ---------------------------------------------------------------------------------------------------
  /// truncate() for a caller that has the whole disk in flight.
  Result<void> resize_exclusively(uint64_t new_length, Preallocation preallocation = Preallocation::kOff)
      coroutine_fn CO_EXCLUDES(lock_);
  Result<void> grow(uint64_t new_length, Preallocation preallocation) coroutine_fn CO_EXCLUDES(lock_);
  Result<void> shrink(uint64_t new_length) coroutine_fn CO_EXCLUDES(lock_);
  Result<void> clear_new_space(uint64_t old_length, uint64_t new_length) coroutine_fn CO_EXCLUDES(lock_);
  Result<void> grow_l1_table_locked(uint64_t entries) coroutine_fn CO_REQUIRES(lock_);
  Result<void> store_l1_location_locked(HostOffset offset, uint32_t entries) coroutine_fn CO_REQUIRES(lock_);
  Result<void> store_size_locked(uint64_t new_length) coroutine_fn CO_REQUIRES(lock_);
  Result<void> drop_l2_tables_locked(uint64_t begin, uint64_t end, FreedSpace space) coroutine_fn CO_REQUIRES(lock_);
  Result<void> free_l2_table_locked(HostOffset table, FreedSpace space) coroutine_fn CO_REQUIRES(lock_);
  void truncate_file_best_effort_locked() coroutine_fn CO_REQUIRES(lock_);

  // --- preallocate.cc ----------------------------------------------------------------------------------------------
  /// Gives each of the guest clusters a host cluster that reads as zeros. They have none, and nobody uses them yet.
  /// On error they have none again.
  Result<void> preallocate_clusters(GuestOffset first, uint64_t clusters, Preallocation preallocation)
      coroutine_fn CO_EXCLUDES(lock_);
  Result<void> preallocate_table(GuestOffset first, uint64_t clusters, Preallocation preallocation)
      coroutine_fn CO_EXCLUDES(lock_);
  Result<void> reserve_run(const WriteRun& run, Preallocation preallocation) coroutine_fn;

  // --- amend.cc ----------------------------------------------------------------------------------------------------
  Result<void> replace_header_locked(Header header) coroutine_fn CO_REQUIRES(lock_);
  Result<void> upgrade_locked() coroutine_fn CO_REQUIRES(lock_);

  // --- refcount_width.cc -------------------------------------------------------------------------------------------
  Result<void> change_refcount_width_locked(uint32_t order) coroutine_fn CO_REQUIRES(lock_);
  Result<ClusterCounts> load_refcounts_locked(const Geometry& geometry) coroutine_fn CO_REQUIRES(lock_);
  Result<void> add_refcounts(const std::byte* slice, HostCluster first, uint64_t count, uint32_t order,
                             ClusterCounts& counts) const;

  // --- downgrade.cc ------------------------------------------------------------------------------------------------
  Result<void> check_downgrade_locked(uint32_t refcount_order) coroutine_fn CO_REQUIRES(lock_);
  Result<bool> any_compressed_locked(std::span<const L1Entry> l1_table) coroutine_fn CO_REQUIRES(lock_);
  Result<void> check_table_offset(L1Entry entry);
  Result<void> downgrade(const ProgressCallback& on_progress) coroutine_fn CO_EXCLUDES(lock_);
  Result<void> expand_zeros_of_snapshots_locked() coroutine_fn CO_REQUIRES(lock_);
  Result<void> expand_zeros_locked(HostOffset l2_table) coroutine_fn CO_REQUIRES(lock_);
  Result<L2Entry> expanded_zero_locked(L2Entry old, uint64_t references) coroutine_fn CO_REQUIRES(lock_);

  // --- snapshot_change.cc -------------------------------------------------------------------------------------------
  struct L1Copy {
    HostOffset offset;
    ClusterCount clusters;
  };
  Result<size_t> find_snapshot_locked(const SnapshotSelector& selector) const CO_REQUIRES_SHARED(lock_);
  Result<L1Copy> store_l1_copy_locked() coroutine_fn CO_REQUIRES(lock_);
  Result<std::vector<L1Entry>> load_snapshot_l1_locked(const Snapshot& snapshot) coroutine_fn CO_REQUIRES(lock_);
  Result<void> check_snapshot_l1_locked(const Snapshot& snapshot, std::span<const L1Entry> table) const
      CO_REQUIRES_SHARED(lock_);
  Result<void> store_l1_table_locked(std::span<const L1Entry> table) coroutine_fn CO_REQUIRES(lock_);
  Result<DroppedReferences> collect_references_locked(HostOffset table) coroutine_fn CO_REQUIRES(lock_);
  Result<void> add_references_locked(std::span<const L1Entry> table) coroutine_fn CO_REQUIRES(lock_);
  Result<void> add_table_references_locked(HostOffset l2_table) coroutine_fn CO_REQUIRES(lock_);
  void drop_references_best_effort_locked(std::span<const L1Entry> table) coroutine_fn CO_REQUIRES(lock_);
  void take_back_references_locked() coroutine_fn CO_REQUIRES(lock_);
  Result<void> refresh_active_copied_locked() coroutine_fn CO_REQUIRES(lock_);
  Result<void> refresh_copied_locked(std::span<L1Entry> table) coroutine_fn CO_REQUIRES(lock_);
  Result<void> refresh_l2_copied_locked(HostOffset l2_table) coroutine_fn CO_REQUIRES(lock_);
  Result<bool> is_only_reference(HostOffset offset) coroutine_fn;
  Result<void> store_snapshots_locked(std::vector<Snapshot> snapshots) coroutine_fn CO_REQUIRES(lock_);
  Result<void> write_snapshot_table_locked(HostOffset offset, std::span<const std::byte> table)
      coroutine_fn CO_REQUIRES(lock_);
  Result<void> store_snapshot_location_locked(HostOffset offset, uint32_t count) coroutine_fn CO_REQUIRES(lock_);

  // --- overlap.cc: the guard against writing guest data over metadata ----------------------------------------------
  /// To be asked before guest data is written and for each new cluster. Errors: EIO, reported, for metadata.
  Result<void> check_overlap_locked(HostOffset offset, uint64_t bytes) CO_REQUIRES_SHARED(lock_);
  /// The same for the bitmap directory, which is about to be changed in place.
  Result<void> check_bitmap_directory_locked() CO_REQUIRES_SHARED(lock_);
  Result<void> build_overlap_guard_locked() CO_REQUIRES_SHARED(lock_);
  /// Reads which L2 tables snapshots have, if the guard is to know them; to be called when snapshots have changed.
  /// Errors: EFBIG for more than is reasonable.
  Result<void> load_inactive_l2_locked() coroutine_fn CO_REQUIRES(lock_);
  /// What lies in a metadata cluster, by name; empty when it is nothing that the user wants to be guarded.
  std::string_view guarded_metadata_locked(HostCluster cluster) const CO_REQUIRES_SHARED(lock_);
  void note_metadata(HostOffset offset, uint64_t bytes, bool in_use);
  /// The tables were changed behind the guard's back (repair): it looks again before it is asked the next time.
  void reset_overlap_guard() { overlap_guard_built_ = false; }
  Error refcounts_damaged(std::string reason) override { return corruption(std::move(reason), true); }
  void refcount_metadata_changed(HostOffset offset, uint64_t bytes, bool in_use) override {
    note_metadata(offset, bytes, in_use);
  }
  void refcount_table_loaded() override { reset_overlap_guard(); }

  // Constant after open.
  const DriverType& type_;
  BlockNode& file_;
  BlockNode& data_;        ///< what has the guest data: file_, or an external data file
  BlockNode* const node_;  ///< the node that this driver belongs to, for its backing child
  const std::string filename_;
  const OpenFlags flags_;
  Geometry geometry_;  ///< changes only when refcounts get another width, and nothing is in flight
  const CompressionType compression_type_;
  const bool raw_data_file_;  ///< the external data file has to be a raw image of the disk
  const RuntimeOptions options_;

  RequestTracker in_flight_;
  CoRwlock lock_;

  Header header_ CO_GUARDED_BY(lock_);
  std::vector<L1Entry> l1_table_ CO_GUARDED_BY(lock_);
  std::vector<Snapshot> snapshots_ CO_GUARDED_BY(lock_);

  std::unique_ptr<MetadataCache> l2_cache_;        ///< entries change under lock_ held exclusively
  std::unique_ptr<MetadataCache> refcount_cache_;  ///< entries change under refcounts_'s lock
  std::unique_ptr<RefcountTable> refcounts_;
  Bitmaps bitmaps_{*this};  ///< has rules of its own

  /// Whether what the guest discards, and what becomes free otherwise, is given back to the host.
  [[nodiscard]] bool passes_discards() const { return flags_.discard_unmap && options_.discard_on_request; }
  static FreedSpace freed(bool discard) { return discard ? FreedSpace::kDiscard : FreedSpace::kKeep; }

  ClusterSet inactive_l2_;        ///< under lock_; empty unless the guard is to know them
  ClusterSet metadata_clusters_;  ///< valid when built; never changes across a yield, so it needs no lock
  bool overlap_guard_built_ = false;

  uint64_t virtual_size_ = 0;  ///< changes in truncate() only, when nothing is in flight
  bool failed_ = false;        ///< damage was found while writing: every further request gets EIO

  std::optional<bool> file_has_holes_;  ///< once it is known

  bool corruption_reported_ = false;   ///< once is enough
  bool corrupt_mark_pending_ = false;  ///< the corrupt bit is still to be stored
  /// Of a read-only image, whose clusters do not change: the last compressed cluster that was read in part.
  std::shared_ptr<const DecodedCluster> last_decoded_;
};

}  // namespace coimg::qcow2
