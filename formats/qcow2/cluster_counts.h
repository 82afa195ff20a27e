// ClusterCounts: how many references check found to each host cluster. No I/O.
#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <variant>
#include <vector>

#include "block/util/offsets.h"

namespace coimg::qcow2 {

/// Counters, one a host cluster, each with two marks about the active tables' COPIED flags.
///
/// Memory: nearly all clusters of an image have the same count, or will have it once all tables are read. So the
/// counters are kept in pieces. A piece whose counters are all the same takes 16 bytes; one with up to four different
/// counters takes two bits a cluster (4 MiB for a TiB of 64 KiB clusters, if all pieces are such); one that has once
/// had more takes a byte a cluster for good, two bytes more if any of them outgrew 6 bits, and another eight if one
/// outgrew 16. Pieces are small, as a damaged table may refer to clusters all over a huge file.
class ClusterCounts {
 public:
  static constexpr unsigned kPieceBits = 9;
  static constexpr uint64_t kPieceClusters = uint64_t{1} << kPieceBits;

  /// Layout of a narrow counter. A count of kNarrowMax stands for itself and all above.
  static constexpr uint8_t kCountMask = 0x3f, kNarrowMax = kCountMask;
  /// An active entry points here and has COPIED set, or it is metadata that must have one reference.
  static constexpr uint8_t kSeenCopied = 0x40;
  static constexpr uint8_t kSeenUncopied = 0x80;  ///< an active entry points here and has COPIED clear

  /// For clusters below `limit`, counting up to `max` (the image's largest refcount). `limit` has been bounded by the
  /// caller; the table of pieces takes 16 bytes per 512 clusters.
  ClusterCounts(uint64_t limit, uint64_t max);

  [[nodiscard]] uint64_t limit() const { return limit_; }
  [[nodiscard]] uint64_t max() const { return max_; }

  /// Adds `times` references and the marks; returns how many did not fit.
  uint64_t add(HostCluster cluster, uint64_t times, uint8_t marks);

  /// Adds `times` references and the marks to each of `count` clusters in a row. Returns how many of them it did: it
  /// stops at those that take add().
  uint64_t add_row(HostCluster first, uint64_t count, uint64_t times, uint8_t marks);

  [[nodiscard]] uint64_t get(HostCluster cluster) const;
  /// Replaces the count; the marks stay. `value` may exceed max().
  void set(HostCluster cluster, uint64_t value);
  [[nodiscard]] uint8_t marks(HostCluster cluster) const;

  /// The counters from `first` on, as many as `to` holds; all in one piece.
  void read(HostCluster first, std::span<uint8_t> to) const;
  /// Whether a cluster of [first, end) has a count.
  [[nodiscard]] bool any(HostCluster first, HostCluster end) const;
  /// Whether [first, end) touches only pieces without a count or a mark; any() without looking at counters.
  [[nodiscard]] bool untouched(HostCluster first, HostCluster end) const;
  /// The first cluster at or behind `from` without a count; limit() when there is none.
  [[nodiscard]] HostCluster find_free(HostCluster from) const;

 private:
  static constexpr uint16_t kWideMax = UINT16_MAX;

  struct Counter {
    static constexpr uint64_t kMaxCount = (uint64_t{1} << 56) - 1;
    uint64_t count : 56;
    uint64_t marks : 8;
    bool operator==(const Counter&) const = default;
    [[nodiscard]] uint8_t narrow() const { return static_cast<uint8_t>(std::min<uint64_t>(count, kNarrowMax) | marks); }
  };

  /// All counters are the same.
  using Uniform = Counter;

  /// Up to four different counters.
  class Packed {
   public:
    explicit Packed(Counter counter) : values_{counter}, clusters_{kPieceClusters} {}
    [[nodiscard]] Counter get(size_t index) const { return values_[slot(index)]; }
    /// Sets `count` counters that are all the same so far. False, and nothing is done, if `value` would be a fifth one.
    [[nodiscard]] bool set_row(size_t index, size_t count, Counter value);
    /// Whether `count` counters are all the same.
    [[nodiscard]] bool is_row(size_t index, size_t count) const;
    /// Whether all of them have the value of this one.
    [[nodiscard]] bool is_uniform(size_t index) const { return clusters_[slot(index)] == kPieceClusters; }
    void read(size_t index, std::span<uint8_t> to) const;

   private:
    static constexpr unsigned kSlots = 4, kSlotBits = 2, kSlotsPerWord = 64 / kSlotBits;
    /// The bits of the slots [begin, end) of a word.
    static uint64_t mask(size_t begin, size_t end);
    /// Calls `visit(word, mask)` for the words that [index, index + count) touches, until it returns false.
    template <typename Words, typename Visit>
    static bool for_each_word(Words& words, size_t index, size_t count, Visit visit);
    [[nodiscard]] unsigned slot(size_t index) const {
      return words_[index / kSlotsPerWord] >> (index % kSlotsPerWord * kSlotBits) & (kSlots - 1);
    }
    /// The slot for a value, which is taken if it is new; kSlots when there is none left.
    unsigned take_slot(Counter value);

    std::array<Counter, kSlots> values_;
    std::array<uint16_t, kSlots> clusters_;  ///< how many have the value; a slot with none is free
    std::array<uint64_t, kPieceClusters / kSlotsPerWord> words_{};
  };

  struct Wide {
    std::array<uint16_t, kPieceClusters> counts;  ///< valid where the narrow count is kNarrowMax
    std::unique_ptr<uint64_t[]> huge;             ///< valid where the wide count is kWideMax
  };
  struct Bytes {
    std::array<uint8_t, kPieceClusters> narrow;
    std::unique_ptr<Wide> wide;
    [[nodiscard]] uint64_t get(size_t index) const;
    void set(size_t index, uint64_t count, uint8_t marks);
  };

  using Piece = std::variant<Uniform, std::unique_ptr<Packed>, std::unique_ptr<Bytes>>;
  static_assert(sizeof(Piece) == 16);

  [[nodiscard]] static size_t index_in_piece(HostCluster cluster) { return cluster.v & (kPieceClusters - 1); }
  [[nodiscard]] Piece& piece_of(HostCluster cluster) {
    assert(cluster.v < limit_);
    return pieces_[cluster.v >> kPieceBits];
  }
  [[nodiscard]] const Piece& piece_of(HostCluster cluster) const {
    assert(cluster.v < limit_);
    return pieces_[cluster.v >> kPieceBits];
  }
  static Bytes& make_bytes(Piece& piece);
  static void store_row(Piece& piece, size_t index, size_t count, Counter counter);
  size_t add_row_in_piece(Piece& piece, size_t index, size_t count, uint64_t times, uint8_t marks) const;
  void store(HostCluster cluster, uint64_t count, uint8_t marks);

  uint64_t limit_, max_;
  uint8_t quick_max_;     ///< up to this a narrow counter may simply be raised
  uint64_t counter_max_;  ///< and a Counter up to this
  std::vector<Piece> pieces_;
};

}  // namespace coimg::qcow2
