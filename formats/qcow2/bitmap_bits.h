// BitmapBits: the bits of a dirty bitmap in memory. No I/O.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "formats/qcow2/bitmap.h"

namespace coimg::qcow2 {

/// The bits in chunks of a cluster each, as the bitmap table has them. A chunk is what its table entry says until bits
/// of it are set; only those that change are in memory. Setting bits needs no reading: they are added to what is stored
/// when the chunk is asked for.
///
/// A chunk's content is known in two steps: the caller reads cluster_of(chunk), and compose() makes the bits of it.
class BitmapBits {
 public:
  BitmapBits() = default;
  /// All bits are zero. `disk_bytes` is at most what kMaxBitmapBytes of bits can stand for.
  BitmapBits(uint64_t disk_bytes, uint8_t granularity_bits, uint64_t chunk_bytes);

  /// Takes what is stored: an entry a chunk, all valid. Forgets changes.
  void set_stored(std::vector<BitmapTableEntry> table);

  [[nodiscard]] uint64_t chunks() const { return table_.size(); }
  [[nodiscard]] uint64_t chunk_bytes() const { return chunk_bytes_; }
  /// Bits of a chunk; the last one may have less than the others.
  [[nodiscard]] uint64_t bits_in(uint64_t chunk) const;
  [[nodiscard]] uint64_t granularity() const { return uint64_t{1} << granularity_bits_; }
  [[nodiscard]] uint64_t disk_bytes() const { return disk_bytes_; }

  /// Sets the bits of all granules that [offset, offset + bytes) touches; what lies behind the disk's end has none.
  void set(uint64_t offset, uint64_t bytes);
  void clear();

  /// New bits are zero. To be called after settle() for the chunk that last_kept(disk_bytes) names.
  void resize(uint64_t disk_bytes);
  /// The last chunk of the smaller of both sizes, which has to be settled before resize().
  [[nodiscard]] uint64_t last_kept(uint64_t disk_bytes) const;
  /// Replaces a chunk by `bits`, which compose() made: what is stored does not matter any more.
  void settle(uint64_t chunk, std::span<const std::byte> bits);

  [[nodiscard]] bool changed() const { return !changed_.empty() || table_changed_; }
  [[nodiscard]] const std::vector<BitmapTableEntry>& table() const { return table_; }
  /// Indexes of the chunks that differ from the table, in ascending order.
  [[nodiscard]] std::vector<uint64_t> changed_chunks() const;

  /// Whether the chunk has no bit set as far as can be told without reading.
  [[nodiscard]] bool known_clear(uint64_t chunk) const;
  /// The cluster that has to be read to know the chunk; 0 for none.
  [[nodiscard]] HostOffset cluster_of(uint64_t chunk) const;
  /// `bits` (a chunk's bytes) holds what is at cluster_of(chunk), or anything when there is none. Leaves the chunk's
  /// bits there, unused ones zero.
  void compose(uint64_t chunk, std::span<std::byte> bits) const;

 private:
  struct Chunk {
    bool complete = false;  ///< else added to what is stored
    std::vector<std::byte> bits;
  };
  [[nodiscard]] uint64_t bits_per_chunk() const { return chunk_bytes_ * 8; }
  Chunk& change(uint64_t chunk);
  void mask_tail(uint64_t chunk, std::span<std::byte> bits) const;

  uint8_t granularity_bits_ = 16;
  uint64_t chunk_bytes_ = 0;
  uint64_t disk_bytes_ = 0;
  uint64_t bit_count_ = 0;
  std::vector<BitmapTableEntry> table_;
  bool table_changed_ = false;  ///< in a way that changed_ does not tell
  std::map<uint64_t, Chunk> changed_;
};

/// Sets `count` bits from `first` on.
void set_bits(std::span<std::byte> bits, uint64_t first, uint64_t count);

/// Calls `visit(first, count)` for each run of set bits. `bits` is a multiple of 8 bytes.
void for_each_run(std::span<const std::byte> bits, const std::function<void(uint64_t first, uint64_t count)>& visit);

}  // namespace coimg::qcow2
