// The life of an open image: open, make ready for writing, flush, close; and what is written to the header meanwhile.
//
// Nothing is written before everything that open looks at has been found good, and a read-only open writes nothing at
// all.
//
// Format: qcow2, sections "Feature bits", "Rewriting the header cluster", "Lazy refcounts", "Overlap protection and the
// corrupt bit: Marking".
#include "formats/qcow2/qcow2.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <span>
#include <utility>

#include "block/open.h"
#include "block/util/buffer.h"
#include "block/util/endian.h"
#include "block/warnings.h"
#include "formats/qcow2/ordered_reads.h"
#include "formats/qcow2/read.h"

namespace coimg::qcow2 {

namespace {

/// What is read at first: the whole header cluster, unless clusters are larger than usual.
constexpr size_t kFirstReadBytes = 64 * kKiB;

// Memory for metadata. It does not grow with the image beyond these caches, an L1 table of 16 KiB and a refcount table
// of 4 KiB for each TiB at the default cluster size (and never more than 32 MiB and 8 MiB).
//
// 8 MiB of L2 tables map 64 GiB at the default cluster size, so that random access to a disk of that size finds every
// entry in memory; sequential work needs one slice at a time.
constexpr uint64_t kMaxL2CacheBytes = 8 * kMiB;
constexpr uint64_t kRefcountCacheBytes = kMiB;
/// Large enough for one I/O to be worth its while, small enough to keep several places of the disk in a small cache.
constexpr uint64_t kMaxSliceBytes = 64 * kKiB;
constexpr size_t kL1PieceEntries = 128 * kKiB;
/// Each request in flight may hold a slice.
constexpr uint64_t kMinL2Slices = 32, kMinRefcountSlices = 4;

/// Reads and checks the header cluster.
Result<Header> load_header(BlockNode& file, const OpenFlags& flags, const DataFileOpener* data_file) coroutine_fn {
  AlignedBuffer start(kFirstReadBytes);
  COIMG_TRY(read_padded(file, HostOffset(0), start.span()));
  const uint64_t cluster_size = COIMG_TRY(header_cluster_size(start.span()));
  if (cluster_size > start.size()) {
    start = AlignedBuffer(cluster_size);
    COIMG_TRY(read_padded(file, HostOffset(0), start.span()));
  }
  return parse_header(start.span(), {.no_refcount_table = flags.check,
                                     .too_many_snapshots = flags.check,
                                     .info_only = flags.no_io,
                                     .data_file_named = data_file != nullptr && data_file->named_by_user()});
}

std::string_view crypt_method_name(CryptMethod method) { return method == CryptMethod::kLuks ? "luks" : "aes"; }

/// Refuses, by name, what this program does not have; looking at metadata is possible.
Result<void> check_supported(const Header& header, const OpenFlags& flags) {
  if (flags.no_io) return {};
  if (header.crypt_method != CryptMethod::kNone) {
    return Error(ENOTSUP, fmt::format("encryption method {} is not supported", crypt_method_name(header.crypt_method)))
        .at("qcow2 header", offsetof(DiskHeaderV2, crypt_method));
  }
  return {};
}

/// Refuses images that may be looked at but not written. Check may write to them, as it knows about the damage.
Result<void> check_writable(const Header& header, const BlockNode& file, const OpenFlags& flags) {
  if (!flags.writable || flags.check) return {};
  if (header.incompatible_features & kCorrupt) {
    return Error(EACCES, "qcow2: Image is corrupt; cannot be opened read/write")
        .at("qcow2 header", offsetof(DiskHeaderV3, incompatible_features));
  }
  // Every cluster would count as free, also those in use.
  if (header.refcount_table_offset.v >= file.exact_length()) {
    return Error(EUCLEAN, fmt::format("Reference count table at {:#x} lies beyond the end of the file; run "
                                      "'coimg check -r all' on it first",
                                      header.refcount_table_offset.v))
        .at("qcow2 header", offsetof(DiskHeaderV2, refcount_table_offset));
  }
  return {};
}

/// What a repair at open tells.
class WarningReporter final : public CheckReporter {
 public:
  void finding(std::string_view line) override { emit_warning(fmt::format("{}\n", line)); }
};

}  // namespace

// --- open ----------------------------------------------------------------------------------------------------------

Result<std::unique_ptr<Qcow2>> Qcow2::open(const DriverType& type, DriverType::OpenArgs args) {
  Header header = COIMG_TRY(load_header(*args.file, args.flags, args.data_file));
  COIMG_TRY(check_supported(header, args.flags));
  COIMG_TRY(check_writable(header, *args.file, args.flags));
  RuntimeOptions options;
  if (args.options) options = COIMG_TRY(take_runtime_options(*args.options, header));

  BlockNode* data = args.file;
  if ((header.incompatible_features & kExternalDataFile) && !args.flags.no_io) {
    if (!args.data_file) return Error(ENOTSUP, "the image's data are in another file");
    data = COIMG_TRY(args.data_file->open(header.data_file.value_or("")));
  }
  std::unique_ptr<Qcow2> image(new Qcow2(type, std::move(args), *data, std::move(header), options));
  COIMG_TRY(image->load_tables());
  if (image->flags_.writable) COIMG_TRY(image->prepare_for_writing());
  return image;
}

Qcow2::Qcow2(const DriverType& type, DriverType::OpenArgs args, BlockNode& data, Header header,
             const RuntimeOptions& options)
    : type_(type),
      file_(*args.file),
      data_(data),
      node_(args.node),
      filename_(std::move(args.filename)),
      flags_(args.flags),
      geometry_(header.geometry()),
      compression_type_(header.compression_type),
      raw_data_file_((header.incompatible_features & kExternalDataFile) != 0 &&
                     (header.autoclear_features & kRawExternalData) != 0),
      options_(options),
      header_(std::move(header)) {
  // A part of a sector is not shown to guests, and the next rewrite of the header drops it.
  header_.size = align_down(header_.size, kSectorSize);
  virtual_size_ = header_.size;
  make_caches();
}

Qcow2::~Qcow2() = default;

void Qcow2::make_caches() {
  const uint64_t slice_bytes = std::min(geometry_.cluster_size(), kMaxSliceBytes);
  const uint64_t all_tables = geometry_.l1_needed(virtual_size_) * geometry_.cluster_size();
  const uint64_t l2_slices = std::max(std::min(kMaxL2CacheBytes, all_tables) / slice_bytes, kMinL2Slices);
  const uint64_t refcount_slices = std::max(kRefcountCacheBytes / slice_bytes, kMinRefcountSlices);
  l2_cache_ = std::make_unique<MetadataCache>(file_, data_, slice_bytes, l2_slices, "L2 table", DebugEvent::kL2Load,
                                              DebugEvent::kL2Update);
  refcount_cache_ = std::make_unique<MetadataCache>(file_, data_, slice_bytes, refcount_slices, "refcount block",
                                                    DebugEvent::kRefblockLoad, DebugEvent::kRefblockUpdatePart);
  refcounts_ =
      std::make_unique<RefcountTable>(file_, geometry_, *refcount_cache_, static_cast<RefcountTableOwner&>(*this));
}

Result<void> Qcow2::load_tables() {
  CoWriteGuard guard(lock_);
  if (!flags_.no_io) {
    COIMG_TRY(load_l1_table_locked().with_context("reading the L1 table"));
    COIMG_TRY(refcounts_->load(header_.refcount_table_offset, header_.refcount_table_clusters));
  }
  const auto oversized = flags_.check ? OversizedSnapshots::kDiscard : OversizedSnapshots::kRefuse;
  snapshots_ = COIMG_TRY(load_snapshot_table(file_, header_, oversized)).snapshots;
  if (flags_.writable && !flags_.check) COIMG_TRY(load_inactive_l2_locked());
  COIMG_TRY(bitmaps_.load_directory_locked());
  if (header_.stale_bitmaps) {
    emit_warning(
        fmt::format("{0}: warning: a program lacking bitmap support modified this file, so all bitmaps are now "
                    "considered inconsistent\n"
                    "Some clusters may be leaked, run '{0} check -r' on the image file to fix.\n",
                    program_invocation_short_name),
        filename_);
  }
  return {};
}

/// In pieces, as there may be 32 MiB of it.
Result<void> Qcow2::load_l1_table_locked() {
  const bool writes = flags_.writable && !flags_.check;
  l1_table_.reserve(header_.l1_size);
  std::vector<be64> piece(std::min<size_t>(header_.l1_size, kL1PieceEntries));
  while (l1_table_.size() < header_.l1_size) {
    const auto stored = std::span(piece).first(std::min(piece.size(), header_.l1_size - l1_table_.size()));
    const HostOffset position = header_.l1_table_offset + l1_table_.size() * sizeof(be64);
    COIMG_TRY(read_padded(file_, position, std::as_writable_bytes(stored)));
    for (const be64& raw : stored) {
      L1Entry entry(uint64_t{raw});
      // A table behind the end of the file is none to write to: without the flag it is replaced, which finds the
      // damage.
      if (writes && entry.has_table() && entry.l2_table().v >= file_.length()) {
        entry = L1Entry::table(entry.l2_table(), /*copied=*/false);
      }
      l1_table_.push_back(entry);
    }
  }
  return {};
}

Result<void> Qcow2::prepare_for_writing() {
  bool dirty = false;
  {
    CoWriteGuard guard(lock_);
    COIMG_TRY(drop_unknown_metadata_locked());
    dirty = (header_.incompatible_features & kDirty) != 0;
  }
  // Check is told about the damage by the user, who decides what becomes of it.
  if (flags_.check) return {};
  if (dirty) COIMG_TRY(repair_dirty());
  return bitmaps_.prepare_for_writing();
}

/// What this program does not keep up to date while it writes must not claim to be valid afterwards. This comes before
/// any other write.
///
/// Crash: the claims are there or not. The clusters of bitmaps that were void already are leaked.
Result<void> Qcow2::drop_unknown_metadata_locked() {
  uint64_t known = kRawExternalData;
  if (header_.bitmaps) known |= kBitmapsValid;
  const uint64_t kept = header_.autoclear_features & known;
  if (kept == header_.autoclear_features && (!header_.stale_bitmaps || flags_.check)) return {};
  header_.autoclear_features = kept;
  header_.stale_bitmaps = false;
  return rewrite_header_locked().with_context("clearing features that are not kept up to date");
}

/// The image was not closed after its refcounts had been left behind: they are made anew before anyone relies on them.
Result<void> Qcow2::repair_dirty() {
  WarningReporter reporter;
  const CheckResult result =
      COIMG_TRY(check({.repair = RepairMode::kAll, .reporter = &reporter}).with_context("repairing the dirty image"));
  if (result.check_errors != 0 || result.corruptions != 0) {
    return Error(EIO, fmt::format("the image was not closed and cannot be repaired: {} errors are left",
                                  result.check_errors + result.corruptions));
  }
  CoWriteGuard guard(lock_);
  return clear_dirty_locked();
}

// --- flush and close -----------------------------------------------------------------------------------------------

Result<void> Qcow2::flush() {
  if (!flags_.writable) return {};
  CoWriteGuard guard(lock_);
  if (failed_) {
    COIMG_TRY(store_pending_corrupt_mark_locked());
    return check_usable();
  }
  return header_.incompatible_features & kDirty ? flush_lazily_locked() : flush_locked();
}

Result<void> Qcow2::flush_locked() {
  if (&data_ != &file_) COIMG_TRY(data_.co_flush());
  // L2 tables settle what they depend on, refcounts among it; what is left has nobody waiting for it.
  COIMG_TRY(l2_cache_->write_back());
  COIMG_TRY(refcount_cache_->write_back());
  COIMG_TRY(file_.co_flush());
  refcounts_->reclaim_freed();
  return {};
}

Result<void> Qcow2::flush_lazily_locked() {
  if (&data_ != &file_) COIMG_TRY(data_.co_flush());
  COIMG_TRY(l2_cache_->write_back());
  COIMG_TRY(refcount_cache_->settle());  // so that freed clusters can be used again
  COIMG_TRY(file_.co_flush());
  refcounts_->reclaim_freed();
  return {};
}

Result<void> Qcow2::close() {
  last_decoded_.reset();
  if (!flags_.writable) return {};
  CoWriteGuard guard(lock_);
  if (failed_) return store_pending_corrupt_mark_locked();  // what the caches hold is not to be trusted
  Result<void> closed = bitmaps_.store_locked();
  if (!failed_) {
    Result<void> flushed = flush_locked();
    if (flushed.ok()) flushed = clear_dirty_locked();
    if (closed.ok()) closed = std::move(flushed);
  }
  if (!failed_) return closed;
  COIMG_TRY(store_pending_corrupt_mark_locked());
  return closed.ok() ? check_usable() : closed;
}

// --- the header ----------------------------------------------------------------------------------------------------

/// Crash: the header cluster is written in one request; a host that tears it leaves old and new sectors.
Result<void> Qcow2::rewrite_header_locked() {
  const std::vector<std::byte> cluster = COIMG_TRY(encode_header(header_));
  COIMG_TRY(file_.co_flush());
  COIMG_TRY(file_.co_pwrite(0, cluster).with_context("writing the header"));
  return file_.co_flush().with_context("flushing the header");
}

Result<void> Qcow2::store_incompatible_features_locked(uint64_t features) {
  assert(header_.version >= 3);
  const be64 stored = features;
  COIMG_TRY(
      file_
          .co_pwrite(offsetof(DiskHeaderV3, incompatible_features), std::as_bytes(std::span<const be64, 1>(&stored, 1)))
          .with_context("writing the header"));
  COIMG_TRY(file_.co_flush().with_context("flushing the header"));
  header_.incompatible_features = features;
  return {};
}

Result<void> Qcow2::store_autoclear_features_locked(uint64_t features) {
  assert(header_.version >= 3);
  const be64 stored = features;
  COIMG_TRY(
      file_.co_pwrite(offsetof(DiskHeaderV3, autoclear_features), std::as_bytes(std::span<const be64, 1>(&stored, 1)))
          .with_context("writing the header"));
  COIMG_TRY(file_.co_flush().with_context("flushing the header"));
  header_.autoclear_features = features;
  return {};
}

Result<void> Qcow2::store_refcount_table_location(HostOffset offset, uint32_t clusters) {
  lock_.assert_wrlocked();
  struct Location {
    be64 offset;
    be32 clusters;
  };
  static_assert(sizeof(Location) == 12);
  const Location stored{.offset = offset.v, .clusters = clusters};
  COIMG_TRY(file_
                .co_pwrite(offsetof(DiskHeaderV2, refcount_table_offset),
                           std::as_bytes(std::span<const Location, 1>(&stored, 1)))
                .with_context("writing the header"));
  COIMG_TRY(file_.co_flush().with_context("flushing the header"));
  header_.refcount_table_offset = offset;
  header_.refcount_table_clusters = clusters;
  return {};
}

// --- lazy refcounts ------------------------------------------------------------------------------------------------

/// A dirty image has its refcounts made anew when it is opened for writing after a crash. So while it is dirty they can
/// stay in memory, and L2 tables need not wait for them.
bool Qcow2::refcounts_are_lazy_locked() const {
  return header_.version >= 3 && !flags_.check &&
         options_.lazy_refcounts.value_or((header_.compatible_features & kLazyRefcounts) != 0);
}

Result<void> Qcow2::mark_dirty_locked() {
  if (header_.incompatible_features & kDirty) return {};
  return store_incompatible_features_locked(header_.incompatible_features | kDirty);
}

/// To be called after flush_locked(). Check alone says what becomes of an image that it was asked to look at.
Result<void> Qcow2::clear_dirty_locked() {
  if (!(header_.incompatible_features & kDirty) || flags_.check) return {};
  return store_incompatible_features_locked(header_.incompatible_features & ~uint64_t{kDirty});
}

Result<void> Qcow2::write_back_l2_tables() { return l2_cache_->write_back(); }

// --- damage --------------------------------------------------------------------------------------------------------

Error Qcow2::corruption(std::string reason, bool fatal) {
  const bool mark = fatal && flags_.writable;
  if (mark && !failed_) {
    failed_ = true;
    corrupt_mark_pending_ = true;
    emit_warning(
        fmt::format("qcow2: Marking image as corrupt: {}; further corruption events will be suppressed\n", reason),
        file_.filename());
  } else if (!mark && !corruption_reported_) {
    emit_warning(
        fmt::format("qcow2: Image is corrupt: {}; further non-fatal corruption events will be suppressed\n", reason),
        file_.filename());
  }
  corruption_reported_ = true;
  return Error::from_errno(EIO);
}

/// If that fails, the image is still lost to this process, which has said so.
void Qcow2::store_pending_corrupt_mark() {
  CoWriteGuard guard(lock_);
  const auto stored = store_pending_corrupt_mark_locked();
  if (!stored.ok()) spdlog::warn("the image could not be marked as corrupt: {}", stored.error().message());
}

Result<void> Qcow2::store_pending_corrupt_mark_locked() {
  if (!corrupt_mark_pending_) return {};
  corrupt_mark_pending_ = false;
  if (header_.version < 3) return {};  // has no such bit: only this open image is lost
  return store_incompatible_features_locked(header_.incompatible_features | kCorrupt);
}

// --- what it is ----------------------------------------------------------------------------------------------------

BlockNode* Qcow2::backing() const { return node_ ? node_->backing() : nullptr; }

BlockLimits Qcow2::limits() const {
  BlockLimits limits;
  limits.zero_alignment = geometry_.cluster_size();
  limits.discard_alignment = geometry_.cluster_size();
  limits.compression_unit = geometry_.external_data() ? 0 : geometry_.cluster_size();
  return limits;
}

/// Preallocated clusters show what the host has in them, so the file has to start with zeros then.
bool Qcow2::created_reads_as_zeros() const CO_NO_THREAD_SAFETY_ANALYSIS {  // asked right after opening: nothing changes
  if (has_backing_locked()) return false;
  const bool preallocated = std::ranges::any_of(l1_table_, [](L1Entry entry) { return entry.has_table(); });
  return !preallocated || data_.driver().created_reads_as_zeros();
}

}  // namespace coimg::qcow2
