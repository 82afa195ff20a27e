// Reading compressed clusters.
//
// Decoding takes place on a worker thread, where it runs beside that of other requests. Clusters that were written one
// after the other lie so in the file, too: they are read at once and decoded in one job, as handing over each of them
// would cost a good part of what decoding does.
//
// Format: qcow2, section "Compressed clusters".
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "coroutine/worker_pool.h"
#include "formats/qcow2/compressed.h"
#include "formats/qcow2/qcow2.h"
#include "formats/qcow2/read.h"

namespace coimg::qcow2 {

namespace {

/// What is read at once for several clusters. It takes that much memory, for each request.
constexpr uint64_t kMaxRunBytes = 512 * kKiB;
/// Rather than read so much that belongs to none of them, another read is made.
constexpr uint64_t kMaxGapBytes = 64 * kKiB;

/// The request's memory when it is in one piece.
std::span<std::byte> single_piece(const IoVector& iov) {
  if (iov.pieces().size() != 1) return {};
  const iovec& piece = iov.pieces().front();
  return {static_cast<std::byte*>(piece.iov_base), piece.iov_len};
}

/// Adds a cluster if its stream lies close to the others.
bool add_cluster(CompressedRun& run, L2Entry entry, const CompressedRange& stream) {
  const HostOffset end = stream.offset + stream.bytes;
  if (run.entries.empty()) {
    run = {{entry}, stream.offset, end};
    return true;
  }
  const HostOffset new_begin = std::min(run.begin, stream.offset), new_end = std::max(run.end, end);
  const bool close = stream.offset.v <= run.end.v + kMaxGapBytes && run.begin.v <= end.v + kMaxGapBytes;
  if (!close || new_end - new_begin > kMaxRunBytes) return false;
  run.entries.push_back(entry);
  run.begin = new_begin;
  run.end = new_end;
  return true;
}

Error in_compressed_cluster(Error error, GuestOffset cluster, HostOffset stream) {
  return std::move(error).at(stream.v).with_context(
      fmt::format("compressed cluster at guest offset {:#x}, host offset {:#x}", cluster.v, stream.v));
}

}  // namespace

// --- several, whole ------------------------------------------------------------------------------------------------

/// The clusters from `first` on, in the next `max_bytes`, that can be read together. `extent` is what was found at
/// `first`. Empty if there is not a whole cluster.
Result<CompressedRun> Qcow2::find_compressed_run_locked(GuestOffset first, const Extent& extent, uint64_t max_bytes) {
  CompressedRun run;
  if (extent.bytes != geometry_.cluster_size()) return run;
  add_cluster(run, extent.entry, extent.entry.compressed_range(geometry_));
  for (uint64_t done = extent.bytes; done + extent.bytes <= max_bytes; done += extent.bytes) {
    const Extent next = COIMG_TRY(map_locked(first + done, extent.bytes));
    if (next.type != ClusterType::kCompressed) break;
    if (!add_cluster(run, next.entry, next.entry.compressed_range(geometry_))) break;
  }
  return run;
}

/// `iov` is in one piece, and as long as the run's clusters.
Result<void> Qcow2::read_compressed_run(GuestOffset first, const CompressedRun& run, const IoVector& iov) {
  const uint64_t cluster_size = geometry_.cluster_size();
  AlignedBuffer buffer(kMaxRunBytes);  // always of the same size, which keeps the heap in one piece
  const std::span<std::byte> part = buffer.span().first(run.end - run.begin);
  for (size_t i = 0; i < run.entries.size(); ++i) file_.debug_event(DebugEvent::kReadCompressed);
  // What cannot be read may belong to none of the clusters: each has to be read for itself then.
  if (!read_data(run.begin, IoVector(part)).ok()) return read_compressed_apart(first, run, iov);

  iov.unmap_pages();
  const std::span<std::byte> memory = single_piece(iov);
  const CompressionType type = compression_type_;
  size_t decoded = 0;
  auto outcome = co_run_on_worker([&]() -> Result<void> {
    for (; decoded < run.entries.size(); ++decoded) {
      const CompressedRange stream = run.entries[decoded].compressed_range(geometry_);
      COIMG_TRY(decompress_cluster(type, part.subspan(stream.offset - run.begin, stream.bytes),
                                   memory.subspan(decoded * cluster_size, cluster_size)));
    }
    return {};
  });
  if (outcome.ok()) return {};
  return in_compressed_cluster(std::move(outcome).error(), first + decoded * cluster_size,
                               run.entries[decoded].compressed_range(geometry_).offset);
}

Result<void> Qcow2::read_compressed_apart(GuestOffset first, const CompressedRun& run, const IoVector& iov) {
  const uint64_t cluster_size = geometry_.cluster_size();
  for (size_t i = 0; i < run.entries.size(); ++i) {
    COIMG_TRY(read_compressed(first + i * cluster_size, run.entries[i], iov.slice(i * cluster_size, cluster_size)));
  }
  return {};
}

// --- one, or a part of it ------------------------------------------------------------------------------------------

/// A cluster in one piece is decoded to where it belongs.
Result<void> Qcow2::read_compressed(GuestOffset offset, L2Entry entry, const IoVector& iov) {
  const uint64_t in_cluster = geometry_.in_cluster(offset.v);
  // Held here, as another request may replace it while this one sleeps.
  if (const auto decoded = last_decoded_; decoded && decoded->raw_entry == entry.raw()) {
    iov.copy_from(0, decoded->bytes.span().subspan(in_cluster, iov.size()));
    return {};
  }

  const CompressedRange range = entry.compressed_range(geometry_);
  AlignedBuffer memory(geometry_.cluster_up(range.bytes));  // of few different sizes, which keeps the heap in one piece
  const std::span<std::byte> stream = memory.span().first(range.bytes);
  file_.debug_event(DebugEvent::kReadCompressed);
  const GuestOffset cluster_start(offset.v - in_cluster);
  if (auto read = read_data(range.offset, IoVector(stream)); !read.ok()) {
    return in_compressed_cluster(std::move(read).error(), cluster_start, range.offset);
  }

  const std::span<std::byte> target = single_piece(iov);
  const bool in_place = target.size() == geometry_.cluster_size();
  AlignedBuffer buffer(in_place ? 0 : geometry_.cluster_size());
  const std::span<std::byte> cluster = in_place ? target : buffer.span();
  if (in_place) iov.unmap_pages();
  const CompressionType type = compression_type_;
  auto outcome = co_run_on_worker([&] { return decompress_cluster(type, stream, cluster); });
  if (!outcome.ok()) {
    return in_compressed_cluster(std::move(outcome).error(), cluster_start, range.offset);
  }
  if (in_place) return {};

  iov.copy_from(0, cluster.subspan(in_cluster, iov.size()));
  // Whoever reads a part of a cluster mostly comes back for the rest. Only where nothing changes: in a writable image
  // the same entry may come to stand for other bytes.
  if (!flags_.writable && iov.size() < geometry_.cluster_size()) {
    last_decoded_ = std::make_shared<const DecodedCluster>(entry.raw(), std::move(buffer));
  }
  return {};
}

}  // namespace coimg::qcow2
