#include "block/protocol/host_file.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "block/node.h"
#include "block/protocol/host_file_driver.h"
#include "block/util/math.h"
#include "block/util/page_buffer.h"
#include "coroutine/io.h"
#include "coroutine/worker_pool.h"

namespace coimg {

namespace {

/// What of a request is still to be transferred.
class PendingPieces {
 public:
  explicit PendingPieces(const IoVector& iov) : pieces_(iov.pieces().begin(), iov.pieces().end()), bytes_(iov.size()) {}

  [[nodiscard]] uint64_t bytes() const { return bytes_; }
  /// As much of it as one system call takes.
  [[nodiscard]] std::span<const iovec> next() const {
    return std::span(pieces_).subspan(first_, std::min<size_t>(pieces_.size() - first_, IOV_MAX));
  }
  void advance(uint64_t count) {
    bytes_ -= count;
    while (count > 0) {
      iovec& piece = pieces_[first_];
      const size_t part = std::min<uint64_t>(count, piece.iov_len);
      piece.iov_base = static_cast<char*>(piece.iov_base) + part;
      piece.iov_len -= part;
      count -= part;
      if (piece.iov_len == 0) ++first_;
    }
  }
  void fill_with_zeros() {
    for (size_t i = first_; i < pieces_.size(); ++i) std::memset(pieces_[i].iov_base, 0, pieces_[i].iov_len);
  }

 private:
  std::vector<iovec> pieces_;
  size_t first_ = 0;
  uint64_t bytes_;
};

/// Below this size copying costs less than page tables do.
constexpr uint64_t kLeastMappedBytes = 256 * kKiB;

/// Reads keep the kernel reading ahead better than page faults do: where part of a file was not in the page cache, as
/// much as this is read before the next attempt to map.
constexpr uint64_t kBytesCopiedAfterMiss = 256 * kMiB;

/// So often the event loop has its turn.
constexpr unsigned kMapsPerTurn = 16;

struct PageRange {
  uint64_t start = 0;  ///< in the memory
  uint64_t bytes = 0;
};

/// The part of `memory`, which stands for the file from `offset` on, that consists of whole pages of both. Empty when
/// the pages of the two do not meet.
PageRange whole_pages(uint64_t offset, std::span<const std::byte> memory, uint64_t file_bytes) {
  static const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(memory.data());
  if (address % page != offset % page) return {};
  const uint64_t begin = align_up(offset, page);
  const uint64_t end = align_down(std::min(offset + memory.size(), file_bytes), page);
  return begin < end ? PageRange{begin - offset, end - begin} : PageRange{};
}

Error io_error(int64_t result) { return Error::from_errno(static_cast<int>(-result)); }

}  // namespace

HostFile::HostFile(const DriverType& type, BlockNode* node, std::string filename, const OpenFlags& flags,
                   HostFileSetup setup, bool lock)
    : type_(type),
      node_(node),
      filename_(std::move(filename)),
      kind_(setup.kind),
      request_alignment_(setup.request_alignment),
      memory_alignment_(setup.memory_alignment),
      writable_(flags.writable),
      direct_(flags.direct),
      discard_(flags.discard_unmap),
      lock_(lock),
      may_map_(is_regular() && !direct_),
      fd_(std::move(setup.fd)),
      length_(setup.length) {}

BlockLimits HostFile::limits() const {
  BlockLimits limits;
  limits.request_alignment = request_alignment_;
  limits.memory_alignment = memory_alignment_;
  return limits;
}

Result<void> HostFile::close() {
  const int fd = fd_.release();
  const auto close_it = [fd] { return ::close(fd) == 0 ? 0 : errno; };
  // Network file systems report failed writes here, and may take their time.
  const int error = writable_ ? co_run_on_worker(close_it) : close_it();
  if (error != 0 && error != EINTR) return Error::from_errno(error, fmt::format("Could not close '{}'", filename_));
  return {};
}

Result<void> HostFile::set_permissions(const Permissions& permissions) {
  if (!lock_ || locks_.hold(permissions)) return {};
  struct stat info{};
  COIMG_TRY(co_run_on_worker([&]() -> Result<void> {
    COIMG_TRY(locks_.change(fd_.get(), permissions, filename_));
    if (fstat(fd_.get(), &info) != 0) return Error::from_errno(errno);
    return {};
  }));
  // Until now others were free to change the file.
  if (is_regular()) length_ = static_cast<uint64_t>(info.st_size);
  holes_.invalidate();
  return {};
}

Result<void> HostFile::preadv(uint64_t offset, const IoVector& iov) {
  if (iov.page_buffer() != nullptr && iov.pieces().size() == 1) return read_pages(offset, iov);
  return read_copy(offset, iov);
}

/// Maps what of the memory are whole pages of the file, if that is worth it, and reads the rest. Where there is another
/// program that could cut the file off at any time, reading such a page can fail late: see PageBuffer.
Result<void> HostFile::read_pages(uint64_t offset, const IoVector& iov) {
  PageBuffer& pages = *iov.page_buffer();
  const iovec& piece = iov.pieces().front();
  const std::span<std::byte> memory(static_cast<std::byte*>(piece.iov_base), piece.iov_len);
  const PageRange range = whole_pages(offset, memory, length_);
  const bool worth_it = may_map_ && range.bytes >= kLeastMappedBytes && bytes_to_copy_ == 0;
  if (!worth_it || !co_map(pages, memory.subspan(range.start, range.bytes), offset + range.start)) {
    bytes_to_copy_ -= std::min<uint64_t>(bytes_to_copy_, memory.size());
    iov.unmap_pages();
    return read_copy(offset, iov);
  }
  if (range.start > 0) COIMG_TRY(read_copy(offset, iov.slice(0, range.start)));
  const uint64_t end = range.start + range.bytes;
  if (end == memory.size()) return {};
  return read_copy(offset + end, iov.slice(end, memory.size() - end));
}

/// Returns whether all of the part is mapped. If not, reading tells what is wrong, if anything is.
bool HostFile::co_map(PageBuffer& pages, std::span<std::byte> part, uint64_t offset) {
  const Cached cached = find_cached(fd_.get(), offset, part.size());
  if (cached == Cached::kNotAll) {
    bytes_to_copy_ = kBytesCopiedAfterMiss;
    return false;
  }
  const auto map = [&] { return pages.map(part, fd_.get(), offset); };
  // What need not wait is done before a worker would have woken up. Who does nothing but read zeros would keep the loop
  // from all else.
  const bool at_once = cached == Cached::kAll && ++maps_ % kMapsPerTurn != 0;
  const auto mapped = at_once ? map() : co_run_on_worker(map);
  if (!mapped.ok() && mapped.error().errnum() == ENOTSUP) may_map_ = false;
  return mapped.ok();
}

Result<void> HostFile::read_copy(uint64_t offset, const IoVector& iov) {
  PendingPieces pending(iov);
  while (pending.bytes() > 0) {
    const int64_t count = co_preadv(fd_.get(), pending.next(), offset);
    if (count < 0) return io_error(count);
    pending.advance(static_cast<uint64_t>(count));
    offset += static_cast<uint64_t>(count);
    // The end of the file. With O_DIRECT a read that stops off the alignment has met it, and cannot be continued.
    if (count == 0 || (direct_ && !is_aligned(offset, request_alignment_))) {
      pending.fill_with_zeros();
      break;
    }
  }
  return {};
}

void HostFile::note_written_up_to(uint64_t end) {
  holes_.invalidate();
  if (is_regular()) length_ = std::max(length_, end);
}

Result<void> HostFile::write_all(uint64_t offset, const IoVector& iov) {
  PendingPieces pending(iov);
  int64_t count = 0;
  while (pending.bytes() > 0) {
    count = co_pwritev(fd_.get(), pending.next(), offset, is_regular() && !direct_ ? &writes_ : nullptr);
    if (count <= 0) break;
    pending.advance(static_cast<uint64_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  note_written_up_to(offset);
  if (pending.bytes() > 0) return count < 0 ? io_error(count) : Error::from_errno(ENOSPC);
  return {};
}

Result<void> HostFile::pwritev(uint64_t offset, const IoVector& iov, const WriteOptions& options) {
  if (is_regular() && offset + iov.size() > length_) {
    const CoReadGuard growing(growth_lock_);
    COIMG_TRY(write_all(offset, iov));
  } else {
    COIMG_TRY(write_all(offset, iov));
  }
  return options.force_unit_access ? flush() : Result<void>();
}

Result<void> HostFile::flush() {
  if (flush_error_ == 0) {
    const int result = co_fdatasync(fd_.get());
    const bool has_nothing_to_sync =
        kind_ == HostFileKind::kCharacterDevice && (result == -EINVAL || result == -ENOTSUP);
    if (result < 0 && !has_nothing_to_sync) flush_error_ = -result;
  }
  if (flush_error_ != 0) return Error::from_errno(flush_error_);
  return {};
}

Result<BlockStatus> HostFile::block_status(uint64_t offset, uint64_t bytes, bool want_zero) {
  BlockStatus status;
  status.bytes = bytes;
  status.allocated = true;
  status.data = true;
  status.host_offset = offset;
  status.file = node_;
  if (!is_regular() || !want_zero) return status;

  if (offset >= length_) {  // the part of the last sector that the file does not have
    status.data = false;
    status.zero = true;
    return status;
  }
  const FileExtent extent = holes_.find(fd_.get(), offset, length_);
  status.data = extent.data;
  status.zero = !extent.data;
  uint64_t end = extent.end;
  if (!is_aligned(end, request_alignment_) && end < length_) {
    // A hole is reported as far as whole requests fit into it, data takes the rest.
    end = extent.data ? align_up(end, request_alignment_) : align_down(end, request_alignment_);
    if (end <= offset) {
      end = offset + request_alignment_;
      status.data = true;
      status.zero = false;
    }
  }
  status.bytes = std::min(bytes, end - offset);
  return status;
}

Result<std::optional<uint64_t>> HostFile::allocated_file_size() {
  struct stat info{};
  const int error = co_run_on_worker([&] { return fstat(fd_.get(), &info) == 0 ? 0 : errno; });
  if (error != 0) return Error::from_errno(error);
  return std::optional<uint64_t>(static_cast<uint64_t>(info.st_blocks) * 512);
}

}  // namespace coimg
