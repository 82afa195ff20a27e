#include "cmd/io/request.h"

#include <fmt/format.h>

#include <algorithm>

#include "block/util/math.h"
#include "coroutine/aio_context.h"

namespace coimg {

namespace {

/// How far -m moves the memory of requests from where O_DIRECT wants it.
constexpr size_t kMisalignment = 16;

/// What is copied at once from backing files into the image.
constexpr uint64_t kCopyBytes = kMiB;

/// Keeps what the backing chain has of a range in the image itself.
Result<void> copy_range_up(BlockNode& node, uint64_t offset, uint64_t bytes) coroutine_fn {
  AlignedBuffer buffer(std::min(kCopyBytes, bytes));
  while (bytes > 0) {
    const auto piece = buffer.span().first(std::min<uint64_t>(buffer.size(), bytes));
    COIMG_TRY(node.co_pread(offset, piece));
    if (node.file() != nullptr) node.file()->debug_event(DebugEvent::kCorWrite);
    COIMG_TRY(node.co_pwrite(offset, piece));
    offset += piece.size();
    bytes -= piece.size();
  }
  return {};
}

/// The same for what the image itself does not have of the clusters that a range touches.
Result<void> copy_on_read(BlockNode& node, uint64_t offset, uint64_t bytes) coroutine_fn {
  if (node.backing() == nullptr) return {};
  const uint64_t cluster = std::max(node.limits().zero_alignment, kSectorSize);
  const uint64_t end = std::min(align_up(offset + bytes, cluster), node.length());
  for (offset = align_down(offset, cluster); offset < end;) {
    const ChainStatus found = COIMG_TRY(node.co_chain_status(offset, end - offset, nullptr, /*want_zero=*/false));
    if (found.status.allocated && found.depth > 0) COIMG_TRY(copy_range_up(node, offset, found.status.bytes));
    offset += found.status.bytes;
  }
  return {};
}

}  // namespace

IoStopwatch::IoStopwatch() : start_ns_(clock_now_ns(ClockType::kMonotonic)) {}

void IoStopwatch::report(IoSession& session, const IoReportOptions& options, std::string_view verb, uint64_t offset,
                         uint64_t bytes) const {
  if (options.quiet) return;
  const double seconds = static_cast<double>(clock_now_ns(ClockType::kMonotonic) - start_ns_) / 1e9;
  const IoReport report{.verb = verb, .offset = offset, .bytes = bytes, .seconds = seconds};
  session.out(options.machine_readable ? render_machine_report(report) : render_io_report(report));
}

IoMemory::IoMemory(const IoSession& session, std::span<const uint64_t> lengths, std::byte fill) {
  uint64_t total = 0;
  for (const uint64_t length : lengths) total += length;
  const size_t skip = session.misalign() ? kMisalignment : 0;
  buffer_ = AlignedBuffer(total + skip);
  bytes_ = buffer_.span().subspan(skip);
  std::ranges::fill(bytes_, fill);
  auto rest = bytes_;
  for (const uint64_t length : lengths) {
    vector_.add(rest.first(length));
    rest = rest.subspan(length);
  }
}

void IoMemory::fill_with(std::span<const std::byte> pattern) {
  for (auto rest = bytes_; !rest.empty();) {
    const size_t step = std::min(rest.size(), pattern.size());
    std::ranges::copy(pattern.first(step), rest.begin());
    rest = rest.subspan(step);
  }
}

IoStatus verify_pattern(IoSession& session, std::span<const std::byte> read, const IoPattern& pattern,
                        uint64_t offset) {
  const auto checked = read.subspan(pattern.start, pattern.bytes);
  if (std::ranges::all_of(checked, [&](std::byte byte) { return byte == pattern.value; })) return IoStatus::kDone;
  return session.complain(
      fmt::format("Pattern verification failed at offset {}, {} bytes", offset + pattern.start, pattern.bytes));
}

Result<void> read_from_image(IoSession& session, uint64_t offset, const IoVector& iov) {
  COIMG_TRY(session.image().check_range(offset, iov.size()));
  BlockNode& node = session.image().node();
  if (session.image().copy_on_read()) COIMG_TRY(copy_on_read(node, offset, iov.size()));
  return node.co_preadv(offset, iov);
}

}  // namespace coimg
