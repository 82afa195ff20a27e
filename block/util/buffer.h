// Memory for I/O: aligned for O_DIRECT, owned, and zero filled only when asked.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <utility>

namespace coimg {

/// A byte buffer aligned to a page. Contents are undefined until written.
///
/// Aligned by hand: a freed block of malloc serves the next request of the same size, one of aligned_alloc is too small
/// for it, and the heap would grow with every round.
class AlignedBuffer {
 public:
  static constexpr size_t kAlignment = 4096;

  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    size_t room = bytes + kAlignment - 1;
    if (room > bytes) block_.reset(std::malloc(room));
    if (!block_) throw std::bad_alloc();
    void* start = block_.get();
    data_ = static_cast<std::byte*>(std::align(kAlignment, bytes, start, room));
  }
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : block_(std::move(other.block_)),
        data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    block_ = std::move(other.block_);
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    return *this;
  }

  static AlignedBuffer zeroed(size_t bytes) {
    AlignedBuffer buffer(bytes);
    if (bytes) std::memset(buffer.data(), 0, bytes);
    return buffer;
  }

  [[nodiscard]] std::byte* data() { return data_; }
  [[nodiscard]] const std::byte* data() const { return data_; }
  [[nodiscard]] size_t size() const { return bytes_; }
  [[nodiscard]] std::span<std::byte> span() { return {data(), bytes_}; }
  [[nodiscard]] std::span<const std::byte> span() const { return {data(), bytes_}; }

 private:
  struct Free {
    void operator()(void* block) const { std::free(block); }
  };
  std::unique_ptr<void, Free> block_;
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace coimg
