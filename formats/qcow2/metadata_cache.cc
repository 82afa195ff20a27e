// A slice is copied out before it is written, so it may change while the write is under way; it is dirty again then.
// Between settling the dependencies and that copy nothing yields: what reaches the disk is never newer than what has
// been settled for it.
//
// Format: qcow2, crash safety: "Dependencies".
#include "formats/qcow2/metadata_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <utility>

#include "block/util/math.h"

namespace coimg::qcow2 {

namespace {
/// Neighbouring dirty slices go out in one write of at most this size: large enough to make the cost of a request
/// small, small enough for the copy to be cheap.
constexpr size_t kMaxBatchBytes = 1 << 20;
}  // namespace

struct MetadataCache::Slice {
  Slice(MetadataCache& owner, HostOffset position)
      : cache(owner), offset(position), memory(new std::byte[owner.slice_bytes_]) {}
  [[nodiscard]] std::span<std::byte> bytes() const { return {memory.get(), cache.slice_bytes_}; }

  MetadataCache& cache;
  const HostOffset offset;
  /// Not aligned: with small clusters there are thousands of slices, and padding would outweigh them.
  const std::unique_ptr<std::byte[]> memory;
  std::list<Slice*>::iterator lru_position;
  unsigned pins = 0;
  bool loading = true;  ///< `memory` is not valid yet
  bool dirty = false;
  bool writing = false;  ///< a copy is on its way: must stay in memory, as the file may still have the old bytes

  [[nodiscard]] bool evictable() const { return pins == 0 && !loading && !writing; }
};

struct MetadataCache::Batch {
  HostOffset offset;
  AlignedBuffer bytes;
  std::vector<Slice*> slices;
};

MetadataCache::Pin::Pin(Slice* slice) : slice_(slice) { ++slice_->pins; }

MetadataCache::Pin& MetadataCache::Pin::operator=(Pin&& other) noexcept {
  if (this != &other) {
    reset();
    slice_ = std::exchange(other.slice_, nullptr);
  }
  return *this;
}

void MetadataCache::Pin::reset() {
  if (!slice_) return;
  Slice* slice = std::exchange(slice_, nullptr);
  assert(slice->pins > 0);
  if (--slice->pins == 0) slice->cache.changed_.restart_all();
}

std::byte* MetadataCache::Pin::data() const { return slice_->memory.get(); }
HostOffset MetadataCache::Pin::offset() const { return slice_->offset; }

MetadataCache::MetadataCache(BlockNode& file, BlockNode& data, size_t slice_bytes, size_t capacity,
                             std::string_view noun, DebugEvent on_load, DebugEvent on_store)
    : file_(file),
      data_(data),
      slice_bytes_(slice_bytes),
      capacity_(std::max<size_t>(capacity, 2)),
      noun_(noun),
      on_load_(on_load),
      on_store_(on_store) {
  assert(std::has_single_bit(slice_bytes) && slice_bytes >= kSectorSize);
}

MetadataCache::~MetadataCache() {
  for ([[maybe_unused]] const auto& [offset, slice] : slices_) assert(slice->evictable());
}

Result<MetadataCache::Pin> MetadataCache::load(HostOffset offset) {
  Slice* const slice = COIMG_TRY(obtain(offset));
  Pin pin(slice);
  if (!slice->loading) return pin;

  auto read = read_slice(*slice);
  if (!read.ok()) {
    pin.reset();
    drop(*slice);
    changed_.restart_all();  // those who waited for it try for themselves
    return std::move(read).error().with_context(fmt::format("reading {} at {:#x}", noun_, offset.v));
  }
  slice->loading = false;
  changed_.restart_all();
  return pin;
}

Result<MetadataCache::Pin> MetadataCache::create_zeroed(HostOffset offset) {
  Slice* const slice = COIMG_TRY(obtain(offset));
  Pin pin(slice);
  std::ranges::fill(slice->bytes(), std::byte{0});
  slice->loading = false;
  mark_dirty(pin);
  return pin;
}

void MetadataCache::mark_dirty(const Pin& pin) {
  Slice& slice = *pin.slice_;
  assert(&slice.cache == this && !slice.loading);
  if (slice.dirty) return;
  slice.dirty = true;
  dirty_offsets_.insert(slice.offset.v);
}

/// The slice at `offset`, not being loaded by anybody else. A new one is `loading` and the caller's to fill, and must
/// be pinned before the next yield.
Result<MetadataCache::Slice*> MetadataCache::obtain(HostOffset offset) {
  assert(is_aligned(offset.v, slice_bytes_));
  // Mostly the last one again.
  if (!lru_.empty() && lru_.back()->offset == offset && !lru_.back()->loading) return lru_.back();
  for (;;) {
    if (const auto found = slices_.find(offset.v); found != slices_.end()) {
      Slice* const slice = found->second.get();
      if (slice->loading) {
        changed_.wait();
        continue;
      }
      lru_.splice(lru_.end(), lru_, slice->lru_position);
      return slice;
    }
    if (slices_.size() >= capacity_) {
      COIMG_TRY(make_room());
      continue;  // others may have come first
    }
    auto slice = std::make_unique<Slice>(*this, offset);
    slice->lru_position = lru_.insert(lru_.end(), slice.get());
    return slices_.emplace(offset.v, std::move(slice)).first->second.get();
  }
}

/// Evicts the slice that was not used for the longest time. When it is dirty all dirty ones are written instead, in
/// order of offset and after one flush; the next try then finds a clean one.
Result<void> MetadataCache::make_room() {
  const auto victim = std::ranges::find_if(lru_, &Slice::evictable);
  if (victim == lru_.end()) {
    changed_.wait();
    return {};
  }
  if ((*victim)->dirty) return write_back();
  drop(**victim);
  return {};
}

Result<void> MetadataCache::read_slice(Slice& slice) {
  const uint64_t file_length = file_.length();
  const uint64_t available = slice.offset.v < file_length ? file_length - slice.offset.v : 0;
  const size_t bytes = std::min<uint64_t>(available, slice_bytes_);
  std::ranges::fill(slice.bytes().subspan(bytes), std::byte{0});
  if (bytes == 0) return {};
  file_.debug_event(on_load_);
  return file_.co_pread(slice.offset.v, slice.bytes().first(bytes));
}

void MetadataCache::drop(Slice& slice) {
  assert(slice.pins == 0 && !slice.writing);
  if (slice.dirty) dirty_offsets_.erase(slice.offset.v);
  lru_.erase(slice.lru_position);
  slices_.erase(slice.offset.v);
}

Result<void> MetadataCache::depend_on(MetadataCache& other) {
  assert(&other != this);
  if (depends_on_ == &other) return {};
  // The other cache must not be in the middle of writing us first, and must not have to do so later.
  CoMutexGuard guard(other.write_lock_);
  if (other.depends_on_) COIMG_TRY(other.settle_dependencies());
  depends_on_ = &other;
  return {};
}

Result<void> MetadataCache::settle_dependencies() {
  if (!depends_on_ && !needs_data_flush_ && !needs_file_flush_) return {};
  settling_ = true;
  Result<void> outcome;
  while (outcome.ok() && (depends_on_ || needs_data_flush_ || needs_file_flush_)) {
    // Cleared before the work starts: what is asked for meanwhile needs another round.
    if (MetadataCache* const other = std::exchange(depends_on_, nullptr)) {
      needs_file_flush_ = true;
      outcome = other->write_back();
      if (!outcome.ok()) depends_on_ = other;
    } else if (needs_data_flush_) {
      needs_data_flush_ = false;
      outcome = data_.co_flush();
      if (!outcome.ok()) needs_data_flush_ = true;
    } else {
      needs_file_flush_ = false;
      outcome = file_.co_flush();
      if (!outcome.ok()) needs_file_flush_ = true;
    }
  }
  settling_ = false;
  return outcome;
}

Result<void> MetadataCache::write_back() {
  CoMutexGuard guard(write_lock_);
  const std::vector<uint64_t> offsets(dirty_offsets_.begin(), dirty_offsets_.end());
  std::span<const uint64_t> left = offsets;
  while (!left.empty()) {
    COIMG_TRY(settle_dependencies());
    const Batch batch = take_batch(left);
    left = left.subspan(std::max<size_t>(batch.slices.size(), 1));
    if (batch.slices.empty()) continue;  // forgotten meanwhile

    file_.debug_event(on_store_);
    auto written = file_.co_pwrite(batch.offset.v, batch.bytes.span());
    finish_batch(batch, written.ok());
    if (!written.ok()) {
      return std::move(written).error().with_context(fmt::format("writing {} at {:#x}", noun_, batch.offset.v));
    }
  }
  return {};
}

Result<void> MetadataCache::settle() {
  CoMutexGuard guard(write_lock_);
  return settle_dependencies();
}

/// Copies the slices at the front of `offsets` that lie next to each other in the file and are (still) dirty.
MetadataCache::Batch MetadataCache::take_batch(std::span<const uint64_t> offsets) {
  Batch batch;
  batch.offset = HostOffset(offsets.front());
  for (const uint64_t offset : offsets) {
    const size_t bytes = batch.slices.size() * slice_bytes_;
    if (offset != batch.offset.v + bytes || (bytes != 0 && bytes + slice_bytes_ > kMaxBatchBytes)) break;
    const auto found = slices_.find(offset);
    if (found == slices_.end() || !found->second->dirty) break;
    batch.slices.push_back(found->second.get());
  }
  if (batch.slices.empty()) return batch;

  batch.bytes = AlignedBuffer(batch.slices.size() * slice_bytes_);
  std::byte* target = batch.bytes.data();
  for (Slice* const slice : batch.slices) {
    std::ranges::copy(slice->bytes(), target);
    target += slice_bytes_;
    slice->dirty = false;
    slice->writing = true;
    dirty_offsets_.erase(slice->offset.v);
    ++writing_count_;
  }
  return batch;
}

void MetadataCache::finish_batch(const Batch& batch, bool written) {
  for (Slice* const slice : batch.slices) {
    slice->writing = false;
    --writing_count_;
    if (!written && !slice->dirty) {
      slice->dirty = true;
      dirty_offsets_.insert(slice->offset.v);
    }
  }
  changed_.restart_all();
}

void MetadataCache::forget(HostOffset offset, uint64_t bytes) {
  while (find_busy(offset, bytes)) changed_.wait();
  for (auto next = lru_.begin(); next != lru_.end();) {
    Slice& slice = **next++;
    if (slice.offset >= offset && slice.offset - offset < bytes) drop(slice);
  }
}

/// A slice in the range with a read or write under way.
MetadataCache::Slice* MetadataCache::find_busy(HostOffset offset, uint64_t bytes) const {
  for (Slice* const slice : lru_) {
    if ((slice->loading || slice->writing) && slice->offset >= offset && slice->offset - offset < bytes) return slice;
  }
  return nullptr;
}

void MetadataCache::trim() {
  for (auto next = lru_.begin(); next != lru_.end();) {
    Slice& slice = **next++;
    if (slice.evictable() && !slice.dirty) drop(slice);
  }
}

}  // namespace coimg::qcow2
