// TreeDigest: the digest of a disk as the root of a hash tree, so that what is empty costs nothing.
//
// The disk is cut into pieces of 1 MiB. With H the algorithm and || for "followed by":
//
//     piece   H(00 || its bytes), the last one filled up with zeros
//     pair    H(01 || left digest || right digest)
//     disk    H(02 || length in bytes, as 8 bytes big-endian || root)
//
// The row of pieces is filled up with pieces of zeros to the next power of two (1 for an empty disk) and joined in
// pairs, and these again, until one digest is left: the root. A run of zeros costs one known digest for each aligned
// power of two in it, so the time does not depend on its length. The first byte keeps a piece from passing for a pair.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "block/util/hasher.h"

namespace coimg {

class TreeDigest {
 public:
  static constexpr uint64_t kPieceBytes = 1 << 20;

  explicit TreeDigest(DigestAlgorithm algorithm);

  /// The digest of one piece: `bytes`, at most a piece, and zeros behind them. Safe to call from several threads.
  [[nodiscard]] Digest piece(std::span<const std::byte> bytes) const;

  /// The next piece of the disk, in guest order.
  void append(const Digest& piece) { append_at(0, piece); }
  /// The next `count` pieces are zeros.
  void append_zeros(uint64_t count);

  /// The digest of the disk, which has `length` bytes: as many as the pieces, but for the last one. Called once.
  Digest finish(uint64_t length);

 private:
  [[nodiscard]] Digest pair(const Digest& left, const Digest& right) const;
  void append_at(unsigned level, Digest digest);

  const DigestAlgorithm algorithm_;
  std::vector<Digest> zeros_;                  ///< of 2^i pieces of zeros
  std::vector<std::optional<Digest>> levels_;  ///< left halves that wait for their right ones, 2^i pieces each
  uint64_t count_ = 0;                         ///< pieces so far
};

}  // namespace coimg
