// IoVector, and the search for zeros that convert, compare and the write paths spend much of their time in.
#include "block/io_vector.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "block/util/cpu.h"
#include "block/util/page_buffer.h"

namespace coimg {
namespace {

/// Calls action(memory, position) for each piece of [offset, offset + bytes), position counting from 0, until it
/// returns false. Returns whether all calls returned true.
template <typename Action>
bool for_each_piece(std::span<const iovec> pieces, uint64_t offset, uint64_t bytes, Action action) {
  uint64_t position = 0;
  for (const iovec& piece : pieces) {
    if (position == bytes) break;
    if (offset >= piece.iov_len) {
      offset -= piece.iov_len;
      continue;
    }
    const auto step = std::min<uint64_t>(piece.iov_len - offset, bytes - position);
    if (!action(std::span(static_cast<std::byte*>(piece.iov_base) + offset, step), position)) return false;
    position += step;
    offset = 0;
  }
  assert(position == bytes);
  return true;
}

/// Four words that one instruction handles where the processor can; else the compiler splits it.
using Vector [[gnu::vector_size(32)]] = uint64_t;
constexpr size_t kBlockBytes = 8 * sizeof(Vector);

/// Whether `blocks` blocks of kBlockBytes are zero; memory of any alignment. Inlined into functions for different
/// processors.
[[gnu::always_inline]] inline bool blocks_are_zero(const std::byte* memory, size_t blocks) {
  for (size_t i = 0; i < blocks; ++i, memory += kBlockBytes) {
    Vector any{};
#pragma GCC unroll 8
    for (size_t k = 0; k < kBlockBytes; k += sizeof(Vector)) {
      Vector words;
      std::memcpy(&words, memory + k, sizeof(words));
      any |= words;
    }
    if ((any[0] | any[1]) | (any[2] | any[3])) return false;
  }
  return true;
}

bool blocks_are_zero_generic(const std::byte* memory, size_t blocks) { return blocks_are_zero(memory, blocks); }

using BlocksAreZero = bool (*)(const std::byte* memory, size_t blocks);

COIMG_AVX2 bool blocks_are_zero_avx2(const std::byte* memory, size_t blocks) { return blocks_are_zero(memory, blocks); }

uint64_t load_word(const std::byte* memory) {
  uint64_t word = 0;
  std::memcpy(&word, memory, sizeof(word));
  return word;
}

}  // namespace

void IoVector::add_piece(std::span<std::byte> memory) {
  if (memory.empty()) return;
  pieces_.push_back({.iov_base = memory.data(), .iov_len = memory.size()});
  size_ += memory.size();
}

void IoVector::add(std::span<std::byte> memory) {
  if (!memory.empty()) pages_ = nullptr;
  add_piece(memory);
}

void IoVector::add(const IoVector& other, uint64_t offset, uint64_t bytes) {
  assert(offset <= other.size_ && bytes <= other.size_ - offset);
  if (bytes == 0) return;
  if (pieces_.empty()) {
    pages_ = other.pages_;
  } else if (pages_ != other.pages_) {
    pages_ = nullptr;
  }
  for_each_piece(other.pieces_, offset, bytes, [this](std::span<std::byte> memory, uint64_t) {
    add_piece(memory);
    return true;
  });
}

IoVector IoVector::slice(uint64_t offset, uint64_t bytes) const {
  IoVector result;
  result.add(*this, offset, bytes);
  return result;
}

void IoVector::unmap_pages() const {
  if (pages_ == nullptr) return;
  for (const iovec& piece : pieces_) pages_->unmap({static_cast<std::byte*>(piece.iov_base), piece.iov_len});
}

void IoVector::fill(uint64_t offset, uint64_t bytes, std::byte value) const {
  for_each_piece(pieces_, offset, bytes, [value, this](std::span<std::byte> memory, uint64_t) {
    if (pages_ != nullptr) pages_->unmap(memory);
    std::memset(memory.data(), std::to_integer<int>(value), memory.size());
    return true;
  });
}

void IoVector::copy_from(uint64_t offset, std::span<const std::byte> source) const {
  for_each_piece(pieces_, offset, source.size(), [source, this](std::span<std::byte> memory, uint64_t position) {
    if (pages_ != nullptr) pages_->unmap(memory);
    std::memcpy(memory.data(), source.data() + position, memory.size());
    return true;
  });
}

void IoVector::copy_to(uint64_t offset, std::span<std::byte> target) const {
  for_each_piece(pieces_, offset, target.size(), [target](std::span<const std::byte> memory, uint64_t position) {
    std::memcpy(target.data() + position, memory.data(), memory.size());
    return true;
  });
}

bool IoVector::is_zero() const {
  return std::ranges::all_of(pieces_, [](const iovec& piece) {
    return coimg::is_zero({static_cast<const std::byte*>(piece.iov_base), piece.iov_len});
  });
}

bool is_zero(std::span<const std::byte> memory) {
  const std::byte* data = memory.data();
  const size_t bytes = memory.size();
  if (bytes < sizeof(uint64_t)) {
    return std::ranges::all_of(memory, [](std::byte byte) { return byte == std::byte{0}; });
  }
  // Data mostly shows at the first look: at either end or in the middle.
  if (load_word(data) | load_word(data + (bytes - sizeof(uint64_t)) / 2) | load_word(data + bytes - sizeof(uint64_t))) {
    return false;
  }
  static const BlocksAreZero blocks_are_zero_here =
      processor_has_avx2() ? blocks_are_zero_avx2 : blocks_are_zero_generic;
  const size_t blocks = bytes / kBlockBytes;
  if (!blocks_are_zero_here(data, blocks)) return false;
  // The rest by words; the last one, which may overlap the one before, has been looked at above.
  for (size_t i = blocks * kBlockBytes; i + sizeof(uint64_t) <= bytes; i += sizeof(uint64_t)) {
    if (load_word(data + i)) return false;
  }
  return true;
}

}  // namespace coimg
