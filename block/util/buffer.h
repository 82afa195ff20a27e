// Memory for I/O: aligned for O_DIRECT, owned, and zero filled only when asked.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <span>

namespace coimg {

/// A byte buffer aligned to a page. Contents are undefined until written.
class AlignedBuffer {
 public:
  static constexpr size_t kAlignment = 4096;

  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t bytes)
      : data_(static_cast<std::byte*>(
            std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment))),
        bytes_(bytes) {
    if (!data_ && bytes) throw std::bad_alloc();
  }
  static AlignedBuffer zeroed(size_t bytes) {
    AlignedBuffer buffer(bytes);
    if (bytes) std::memset(buffer.data(), 0, bytes);
    return buffer;
  }

  [[nodiscard]] std::byte* data() { return data_.get(); }
  [[nodiscard]] const std::byte* data() const { return data_.get(); }
  [[nodiscard]] size_t size() const { return bytes_; }
  [[nodiscard]] std::span<std::byte> span() { return {data(), bytes_}; }
  [[nodiscard]] std::span<const std::byte> span() const { return {data(), bytes_}; }

 private:
  struct Free {
    void operator()(std::byte* data) const { std::free(data); }
  };
  std::unique_ptr<std::byte, Free> data_;
  size_t bytes_ = 0;
};

}  // namespace coimg
