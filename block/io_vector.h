// IoVector: the memory of one request, possibly in pieces. It refers to memory and owns none.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace coimg {

class PageBuffer;

class IoVector {
 public:
  IoVector() = default;
  explicit IoVector(std::span<std::byte> memory) { add(memory); }
  /// `memory` is a part of `pages`, where a driver may map the file instead of reading it.
  IoVector(PageBuffer& pages, std::span<std::byte> memory) : pages_(&pages) { add_piece(memory); }
  /// For writes: the memory is not modified by the request.
  explicit IoVector(std::span<const std::byte> memory) { add({const_cast<std::byte*>(memory.data()), memory.size()}); }

  /// Appends a piece; empty ones are left out.
  void add(std::span<std::byte> memory);
  /// Appends bytes [offset, offset + bytes) of `other`.
  void add(const IoVector& other, uint64_t offset, uint64_t bytes);

  [[nodiscard]] uint64_t size() const { return size_; }
  /// What all of the memory belongs to; null when that is not known, or is not one buffer.
  [[nodiscard]] PageBuffer* page_buffer() const { return pages_; }
  [[nodiscard]] std::span<const iovec> pieces() const { return pieces_; }
  /// The part [offset, offset + bytes), which must lie inside.
  [[nodiscard]] IoVector slice(uint64_t offset, uint64_t bytes) const;

  /// Before all of it is overwritten: see PageBuffer. What follows does so itself.
  void unmap_pages() const;
  /// Byte operations on [offset, offset + n) of the memory.
  void fill(uint64_t offset, uint64_t bytes, std::byte value) const;
  void copy_from(uint64_t offset, std::span<const std::byte> source) const;
  void copy_to(uint64_t offset, std::span<std::byte> target) const;
  [[nodiscard]] bool is_zero() const;

 private:
  void add_piece(std::span<std::byte> memory);

  std::vector<iovec> pieces_;
  uint64_t size_ = 0;
  PageBuffer* pages_ = nullptr;
};

/// Whether all bytes are zero; vectorised, reads at full memory speed.
bool is_zero(std::span<const std::byte> memory);

}  // namespace coimg
