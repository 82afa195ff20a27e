// IoRequest: a read or write of I/O commands, with its memory and the report of it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "block/io_vector.h"
#include "block/util/buffer.h"
#include "cmd/io/report.h"
#include "cmd/io/session.h"

namespace coimg {

/// What commands that transfer data have in common: -C and -q.
struct IoReportOptions {
  bool machine_readable = false;
  bool quiet = false;
};

/// Measures and reports one request.
class IoStopwatch {
 public:
  IoStopwatch();
  /// Prints what it took from the construction on, unless that is not wanted.
  void report(IoSession& session, const IoReportOptions& options, std::string_view verb, uint64_t offset,
              uint64_t bytes) const;

 private:
  int64_t start_ns_;
};

/// The memory of one request, in pieces.
class IoMemory {
 public:
  /// All bytes are `fill` at first.
  IoMemory(const IoSession& session, std::span<const uint64_t> lengths, std::byte fill);

  [[nodiscard]] const IoVector& vector() const { return vector_; }
  [[nodiscard]] uint64_t size() const { return vector_.size(); }
  [[nodiscard]] std::span<std::byte> bytes() { return bytes_; }
  /// Repeats the bytes of `pattern`, which is not empty.
  void fill_with(std::span<const std::byte> pattern);

 private:
  AlignedBuffer buffer_;
  std::span<std::byte> bytes_;
  IoVector vector_;
};

/// A part of what was read that has to consist of one byte.
struct IoPattern {
  std::byte value;
  uint64_t start = 0;  ///< from the start of what was read
  uint64_t bytes = 0;
};

/// Says where what was read is not the pattern.
IoStatus verify_pattern(IoSession& session, std::span<const std::byte> read, const IoPattern& pattern, uint64_t offset);

/// Reads from the image as the session's options say. Errors: EIO outside the disk.
Result<void> read_from_image(IoSession& session, uint64_t offset, const IoVector& iov) coroutine_fn;

}  // namespace coimg
