// MemDriver: an image file in memory, as the bottom of a node tree in tests.
//
//     auto disk = std::make_shared<MemDisk>();              // outlives the nodes: the "medium"
//     auto file = make_mem_node(disk);                      // a protocol node on it
//     auto image = open_format(type, std::move(file), {.writable = true});   // a format on the node
//     ...
//     co_close(), then make_mem_node(disk) again: the image is reopened.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "block/driver.h"
#include "block/node.h"
#include "block/util/result.h"

namespace coimg {

/// The bytes of a file. They live on when the node is closed, so that an image can be opened again.
struct MemDisk {
  MemDisk() = default;
  explicit MemDisk(std::vector<std::byte> content) : bytes(std::move(content)) {}
  std::vector<std::byte> bytes;
  std::optional<uint64_t> bad_byte = std::nullopt;  ///< reads that touch it are EIO
};

/// How a MemDriver behaves.
struct MemOptions {
  BlockLimits limits = {};                 ///< requests that break them fail the test
  bool supports_zeroes = true;             ///< false: pwrite_zeroes is ENOTSUP, so that the fallback runs
  bool yields = false;                     ///< each request lets other coroutines run before and after it copies
  uint64_t max_bytes = uint64_t{1} << 30;  ///< growing beyond is ENOSPC
};

/// What was asked of a driver so far.
struct IoCounters {
  uint64_t reads = 0, writes = 0, zeroes = 0, discards = 0, flushes = 0, truncates = 0, statuses = 0;
  uint64_t bytes_read = 0, bytes_written = 0;
};

/// A growable byte array as a protocol driver. A 4 KiB block that holds only zeros counts as a hole.
class MemDriver : public BlockDriver {
 public:
  static constexpr uint64_t kHoleBytes = 4096;

  explicit MemDriver(std::shared_ptr<MemDisk> disk, MemOptions options = {});

  [[nodiscard]] std::vector<std::byte>& bytes() { return disk_->bytes; }
  [[nodiscard]] const IoCounters& counters() const { return counters_; }
  void reset_counters() { counters_ = {}; }
  /// What was asked for, and held zeros then.
  [[nodiscard]] const std::vector<ByteRange>& reserved() const { return reserved_; }

  const DriverType& type() const override;
  uint64_t length() const override { return disk_->bytes.size(); }
  BlockLimits limits() const override { return options_.limits; }
  Result<void> preadv(uint64_t offset, const IoVector& iov) coroutine_fn override;
  Result<void> pwritev(uint64_t offset, const IoVector& iov, const WriteOptions& options) coroutine_fn override;
  Result<void> pwrite_zeroes(uint64_t offset, uint64_t bytes, const ZeroOptions& options) coroutine_fn override;
  Result<void> reserve(std::span<const ByteRange> ranges) coroutine_fn override;
  Result<void> pdiscard(uint64_t offset, uint64_t bytes) coroutine_fn override;
  Result<void> flush() coroutine_fn override;
  Result<BlockStatus> block_status(uint64_t offset, uint64_t bytes, bool want_zero) coroutine_fn override;
  Result<void> truncate(uint64_t new_length, Preallocation preallocation) coroutine_fn override;

 private:
  Result<void> grow_to(uint64_t length);
  void check_aligned(uint64_t offset, uint64_t bytes) const;
  void check_iov(const IoVector& iov) const;
  void maybe_yield() const coroutine_fn;

  std::shared_ptr<MemDisk> disk_;
  MemOptions options_;
  IoCounters counters_;
  std::vector<ByteRange> reserved_;
};

/// A protocol node, writable unless told otherwise, on bytes in memory.
std::unique_ptr<BlockNode> make_mem_node(std::vector<std::byte> content);
std::unique_ptr<BlockNode> make_mem_node(std::shared_ptr<MemDisk> disk, MemOptions options = {},
                                         OpenFlags flags = {.writable = true});

/// The driver below a node that make_mem_node() made.
MemDriver& mem_driver(const BlockNode& node);

/// Opens a format on `file` without the help of block/open: no options, no backing file, no probing. The node takes the
/// file's name. `data` becomes the data file of an image that wants one. On error the files are closed.
Result<std::unique_ptr<BlockNode>> open_format(const DriverType& type, std::unique_ptr<BlockNode> file, OpenFlags flags,
                                               Options options = {}, std::unique_ptr<BlockNode> data = nullptr)
    coroutine_fn;

/// Reads a whole node as its guest sees it; the test fails when that does.
std::vector<std::byte> read_all(BlockNode& node) coroutine_fn;

/// `bytes` bytes that are nowhere zero and depend on `seed`.
std::vector<std::byte> pattern(size_t bytes, uint64_t seed = 1);

}  // namespace coimg
