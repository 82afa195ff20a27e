#include "block/tree_digest.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>

#include "block/io_vector.h"
#include "block/util/endian.h"
#include "block/util/math.h"

namespace coimg {

namespace {

// 2^44 pieces are more than any length has.
constexpr unsigned kLevels = 45;

enum class Role : uint8_t { kPiece = 0, kPair = 1, kDisk = 2 };

void begin(Hasher& hasher, Role role) {
  const std::byte first{static_cast<uint8_t>(role)};
  hasher.update({&first, 1});
}

/// A piece of zeros.
std::span<const std::byte> zeros() {
  static const std::vector<std::byte> bytes(TreeDigest::kPieceBytes);
  return bytes;
}

}  // namespace

TreeDigest::TreeDigest(DigestAlgorithm algorithm) : algorithm_(algorithm), levels_(kLevels) {
  Hasher hasher(algorithm_);
  begin(hasher, Role::kPiece);
  hasher.update(zeros());
  zeros_.push_back(hasher.finish());
  while (zeros_.size() < kLevels) zeros_.push_back(pair(zeros_.back(), zeros_.back()));
}

Digest TreeDigest::piece(std::span<const std::byte> bytes) const {
  assert(bytes.size() <= kPieceBytes);
  if (is_zero(bytes)) return zeros_[0];
  Hasher hasher(algorithm_);
  begin(hasher, Role::kPiece);
  hasher.update(bytes);
  hasher.update(zeros().subspan(bytes.size()));
  return hasher.finish();
}

Digest TreeDigest::pair(const Digest& left, const Digest& right) const {
  Hasher hasher(algorithm_);
  begin(hasher, Role::kPair);
  hasher.update(left.bytes());
  hasher.update(right.bytes());
  return hasher.finish();
}

/// Adds 2^level pieces, a multiple of which there are already.
void TreeDigest::append_at(unsigned level, Digest digest) {
  count_ += uint64_t{1} << level;
  for (; levels_[level].has_value(); ++level) {
    digest = pair(*levels_[level], digest);
    levels_[level].reset();
  }
  levels_[level] = digest;
}

void TreeDigest::append_zeros(uint64_t count) {
  while (count > 0) {
    unsigned level = static_cast<unsigned>(std::bit_width(count)) - 1;
    if (count_ != 0) level = std::min(level, static_cast<unsigned>(std::countr_zero(count_)));
    append_at(level, zeros_[level]);
    count -= uint64_t{1} << level;
  }
}

Digest TreeDigest::finish(uint64_t length) {
  assert(count_ == div_ceil(length, kPieceBytes));
  append_zeros(std::bit_ceil(std::max<uint64_t>(count_, 1)) - count_);
  const Digest root = *levels_[static_cast<unsigned>(std::countr_zero(count_))];
  const be64 stored = length;
  Hasher hasher(algorithm_);
  begin(hasher, Role::kDisk);
  hasher.update(std::as_bytes(std::span(&stored, 1)));
  hasher.update(root.bytes());
  return hasher.finish();
}

}  // namespace coimg
