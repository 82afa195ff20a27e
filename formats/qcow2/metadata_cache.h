// MetadataCache: pieces of L2 tables and refcount blocks in memory, with dirty state and flush dependencies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <set>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "block/node.h"
#include "block/util/buffer.h"
#include "block/util/offsets.h"
#include "block/util/result.h"
#include "coroutine/co_mutex.h"
#include "coroutine/co_queue.h"

namespace coimg::qcow2 {

/// An LRU cache of equally sized, aligned pieces ("slices") of the image file.
///
/// Dependencies: an entry of this cache must not reach the disk before what it refers to. `depend_on(other)` says that
/// all that is dirty in `other` now goes first, followed by a flush of the file; `depend_on_data()` asks for a flush of
/// the file that has the guest data only. Two caches never depend on each other: setting the reverse writes the earlier
/// dependency out first.
///
/// Used from one AioContext. Who may change which entry is the caller's matter (Qcow2::lock_, RefcountTable::lock_).
class MetadataCache {
 public:
  struct Slice;

  /// Keeps a slice in memory for as long as it lives.
  class Pin {
   public:
    Pin() = default;
    explicit Pin(Slice* slice);
    Pin(Pin&& other) noexcept : slice_(other.slice_) { other.slice_ = nullptr; }
    Pin& operator=(Pin&& other) noexcept;
    ~Pin() { reset(); }
    void reset();
    [[nodiscard]] explicit operator bool() const { return slice_ != nullptr; }
    [[nodiscard]] std::byte* data() const;
    [[nodiscard]] HostOffset offset() const;

   private:
    friend class MetadataCache;
    Slice* slice_ = nullptr;
  };

  /// `slice_bytes` is a power of two, 512 up to the cluster size; `capacity` slices are kept, at least 2. `noun` names
  /// the contents in messages ("L2 table", "refcount block").
  /// `data`: the file that has the guest data, often the same.
  /// `on_load`, `on_store`: what is announced to the file when slices are read and written.
  MetadataCache(BlockNode& file, BlockNode& data, size_t slice_bytes, size_t capacity, std::string_view noun,
                DebugEvent on_load = DebugEvent::kNone, DebugEvent on_store = DebugEvent::kNone);
  ~MetadataCache();  // asserts that nothing is pinned

  [[nodiscard]] size_t slice_bytes() const { return slice_bytes_; }

  /// The slice at `offset` (slice aligned); read from the file unless cached. What lies beyond the end of the file is
  /// zeros. Waits when another coroutine is reading it, and when all slices are pinned. May write back an old slice.
  Result<Pin> load(HostOffset offset) coroutine_fn;

  /// The slice at `offset`, filled with zeros and dirty, without reading: for newly allocated tables.
  Result<Pin> create_zeroed(HostOffset offset) coroutine_fn;

  void mark_dirty(const Pin& pin);
  /// Something has not arrived in the file yet.
  [[nodiscard]] bool dirty() const { return !dirty_offsets_.empty() || writing_count_ != 0; }

  /// Errors: what writing out the reverse dependency gave; nothing has changed then.
  Result<void> depend_on(MetadataCache& other) coroutine_fn;
  void depend_on_data() { (&data_ == &file_ ? needs_file_flush_ : needs_data_flush_) = true; }
  /// What this cache depends on may not be durable yet.
  [[nodiscard]] bool has_unsettled_dependency() const {
    return depends_on_ || needs_data_flush_ || needs_file_flush_ || settling_;
  }

  /// Writes all dirty slices in order of offset, what they depend on first. Does not flush the file afterwards.
  /// Errors: what the file says; the slices that were not written stay dirty and nothing is lost.
  Result<void> write_back() coroutine_fn;

  /// Makes durable what this cache depends on, and writes nothing of its own. Errors: what that gave.
  Result<void> settle() coroutine_fn;

  /// Drops [offset, offset + bytes), dirty or not: the clusters are being freed, and nothing may be written there
  /// later. Waits for a read or write of them that is under way; the caller must not have them pinned.
  void forget(HostOffset offset, uint64_t bytes) coroutine_fn;
  /// Drops everything that is clean and not pinned.
  void trim();

 private:
  struct Batch;

  Result<Slice*> obtain(HostOffset offset) coroutine_fn;
  Result<void> make_room() coroutine_fn;
  Result<void> read_slice(Slice& slice) coroutine_fn;
  void drop(Slice& slice);
  [[nodiscard]] Slice* find_busy(HostOffset offset, uint64_t bytes) const;
  Batch take_batch(std::span<const uint64_t> offsets);
  void finish_batch(const Batch& batch, bool written);
  Result<void> settle_dependencies() coroutine_fn CO_REQUIRES(write_lock_);

  BlockNode& file_;
  BlockNode& data_;
  const size_t slice_bytes_;
  const size_t capacity_;
  const std::string_view noun_;
  const DebugEvent on_load_, on_store_;
  std::unordered_map<uint64_t, std::unique_ptr<Slice>> slices_;
  std::list<Slice*> lru_;             ///< front: longest unused; only unpinned ones are evicted
  std::set<uint64_t> dirty_offsets_;  ///< of the dirty slices, in the order in which they are written
  size_t writing_count_ = 0;
  /// Set only under the other cache's write_lock_, so that it cannot appear while that cache is being written.
  MetadataCache* depends_on_ = nullptr;
  bool needs_data_flush_ = false;  ///< never when `data_` is `file_`
  bool needs_file_flush_ = false;
  bool settling_ = false;  ///< depends_on_ and the flushes are being worked off
  CoMutex write_lock_;     ///< one write_back at a time
  CoQueue changed_;        ///< a slice became loaded, unpinned or written
};

}  // namespace coimg::qcow2
