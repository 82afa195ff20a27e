// PageBuffer: memory for large reads, where pages of a file can stand instead of copies of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "block/util/result.h"

namespace coimg {

/// A page-aligned byte buffer. Like other memory it can be read and written anywhere; contents are undefined until
/// written.
///
/// A driver that has a file below may map() the file's pages into it, which spares the copy. Nothing that is written to
/// the buffer reaches the file then. But what is mapped follows the file: who must not see a byte change between two
/// looks (decoders, for one) copies it. And it can get lost: when the file is cut off, or the disk fails once the page
/// had to leave memory, reads of it give zeros and take_lost() tells. Each user asks before trusting what it has read.
class PageBuffer {
 public:
  explicit PageBuffer(size_t bytes);
  ~PageBuffer();
  PageBuffer(const PageBuffer&) = delete;
  PageBuffer& operator=(const PageBuffer&) = delete;

  [[nodiscard]] std::span<std::byte> span() { return {memory_, bytes_}; }

  /// Shows the file from `offset` on in `part`. `part` and `offset` consist of whole pages. Blocks when pages are not
  /// in the page cache. Errors: ENOTSUP when kernel or file system have no means for this. After one, part of `part`
  /// may be mapped.
  Result<void> map(std::span<std::byte> part, int fd, uint64_t offset);
  /// Before `part` is overwritten: gives it memory of its own where files were mapped. Without it each page would be
  /// copied first.
  void unmap(std::span<std::byte> part);
  /// Whether a mapped page could not be had when it was looked at. Asking resets it.
  bool take_lost();

 private:
  struct Slot;
  friend struct LostPages;

  std::byte* memory_;
  size_t bytes_;
  Slot* slot_;                            ///< null: too many buffers; nothing is mapped then
  size_t mapped_begin_, mapped_end_ = 0;  ///< files are mapped nowhere but in between
};

/// How much of a part of a file is in the page cache. Where it is not, reads get it from the disk faster than page
/// faults do.
enum class Cached { kNotAll, kNearlyAll, kAll };
/// kAll: mapping it hardly ever waits for the disk. Does not block. On kernels that do not tell (Linux 6.5 does, about
/// files of one's own) a part counts as kNearlyAll when its ends are there.
Cached find_cached(int fd, uint64_t offset, uint64_t bytes);

/// The error for what take_lost() tells.
Error lost_pages();

}  // namespace coimg
