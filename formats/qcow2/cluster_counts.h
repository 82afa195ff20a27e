// ClusterCounts: how many references check found to each host cluster. No I/O.
#pragma once

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
/// counters takes two bits a cluster (4 MiB for a TiB of 64 KiB clusters, if all pieces are such), and one with more a
/// byte a cluster. A piece in which a counter outgrows 6 bits, as with many snapshots, takes two bytes a cluster more;
/// one with a counter of more than 16 bits, another eight. Pieces are small, as a damaged table may refer to clusters
/// all over a huge file.
class ClusterCounts {
 public:
  static constexpr unsigned kPieceBits = 9;
  static constexpr uint64_t kPieceClusters = uint64_t{1} << kPieceBits;

  /// Layout of a counter. A count of kNarrowMax stands for "look into the wide ones".
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

  /// Adds one reference and the marks to each of `count` clusters in a row. Returns how many of them it did: it stops
  /// at those that take add().
  uint64_t add_row(HostCluster first, uint64_t count, uint8_t marks);

  [[nodiscard]] uint64_t get(HostCluster cluster) const;
  /// Replaces the count; the marks stay. `value` may exceed max().
  void set(HostCluster cluster, uint64_t value);
  [[nodiscard]] uint8_t marks(HostCluster cluster) const {
    return counter(cluster) & static_cast<uint8_t>(~kCountMask);
  }

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

  /// All counters are the same, and below kNarrowMax.
  using Uniform = uint8_t;

  /// Up to four different counters, all below kNarrowMax.
  class Packed {
   public:
    explicit Packed(Uniform value) : values_{value}, clusters_{kPieceClusters} {}
    [[nodiscard]] uint8_t get(size_t index) const { return values_[slot(index)]; }
    /// Sets `count` counters that are all the same so far. False, and nothing is done, if `value` would be a fifth one.
    [[nodiscard]] bool set_row(size_t index, size_t count, uint8_t value);
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
    unsigned take_slot(uint8_t value);

    std::array<uint8_t, kSlots> values_;
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
  [[nodiscard]] uint8_t counter(HostCluster cluster) const;
  /// Whether one reference may be added to a counter without a look at the wide ones and at max().
  [[nodiscard]] bool is_quick(uint8_t counter) const { return (counter & kCountMask) < quick_max_; }
  [[nodiscard]] static uint8_t incremented(uint8_t counter, uint8_t marks) {
    return static_cast<uint8_t>((counter + 1) | marks);
  }

  static Bytes& make_bytes(Piece& piece);
  static void store_row(Piece& piece, size_t index, size_t count, uint8_t counter);
  size_t add_row_in_piece(Piece& piece, size_t index, size_t count, uint8_t marks) const;
  void store_count(HostCluster cluster, uint64_t count, uint8_t marks);

  uint64_t limit_, max_;
  uint8_t quick_max_;  ///< a counter below this may simply be incremented
  std::vector<Piece> pieces_;
};

}  // namespace coimg::qcow2
