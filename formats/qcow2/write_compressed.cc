// Writing compressed clusters.
//
// A request is one cluster or many. They are compressed on worker threads beside each other, then placed in guest
// order, written in as few requests as the layout allows, and linked. The streams are in the file before any L2 entry
// that refers to them can get there.
//
// Format: qcow2, sections "Writing compressed", "Packing".
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <optional>

#include "block/util/buffer.h"
#include "block/util/endian.h"
#include "block/util/math.h"
#include "coroutine/co_group.h"
#include "coroutine/worker_pool.h"
#include "formats/qcow2/compressed.h"
#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {

namespace {
/// So many clusters are compressed in one job: with a job each, handing over took a sixth of the time.
constexpr uint64_t kJobBytes = 512 * kKiB;
}  // namespace

struct Qcow2::CompressedRequest {
  CompressedRequest(GuestOffset offset, uint64_t clusters, uint64_t cluster_size)
      : first(offset), cluster_bytes(cluster_size), pieces(clusters), streams(clusters * cluster_size) {}

  struct Piece {
    std::span<const std::byte> plain;  ///< the cluster's content
    uint64_t stream_bytes = 0;         ///< 0: stored plain, as compressing does not make it shorter
    HostOffset host;
    [[nodiscard]] bool compressed() const { return stream_bytes != 0; }
  };
  [[nodiscard]] std::span<std::byte> stream_space(size_t i) {
    return streams.span().subspan(i * cluster_bytes, cluster_bytes);
  }
  /// What is to be written for piece `i`.
  [[nodiscard]] std::span<const std::byte> stored(size_t i) const {
    const Piece& piece = pieces[i];
    return piece.compressed() ? streams.span().subspan(i * cluster_bytes, piece.stream_bytes) : piece.plain;
  }

  const GuestOffset first;
  const uint64_t cluster_bytes;
  std::vector<Piece> pieces;
  AlignedBuffer streams;              ///< room for a cluster each; untouched pages cost nothing
  std::vector<AlignedBuffer> copies;  ///< of clusters that are not in one piece of memory
  size_t linked = 0;                  ///< pieces whose L2 entries refer to their new place
};

Result<void> Qcow2::pwrite_compressed(uint64_t offset, const IoVector& iov, const WriteOptions& options) {
  COIMG_TRY(check_usable());
  const DamageScope damage(*this);
  if (geometry_.external_data()) return Error::from_errno(ENOTSUP);
  const uint64_t end = offset + iov.size();
  if (geometry_.in_cluster(offset) != 0 || (geometry_.in_cluster(end) != 0 && end != virtual_size_)) {
    return Error(EINVAL, "compressed writes have to be aligned to clusters");
  }
  CompressedRequest request(GuestOffset(offset), geometry_.clusters_for(iov.size()), geometry_.cluster_size());
  COIMG_TRY(compress(request, iov, options.compression_level));

  if (options.placement) options.placement->wait_turn();
  const TrackedRequest tracked(in_flight_, offset, geometry_.cluster_up(iov.size()), RangeMode::kExclusive);
  COIMG_TRY(bitmaps_.note_change(offset, iov.size()));
  {
    CoWriteGuard guard(lock_);
    COIMG_TRY(place_compressed_locked(request));
  }
  if (options.placement) options.placement->finish();

  Result<void> outcome = write_streams(request);
  DroppedReferences dropped;  // stays empty: nothing is replaced
  if (outcome.ok()) {
    CoWriteGuard guard(lock_);
    outcome = link_compressed_locked(request, dropped);
  }
  if (!outcome.ok()) abandon_compressed(request);
  return outcome;
}

// --- compress ------------------------------------------------------------------------------------------------------

/// Fills in the pieces' content and streams.
Result<void> Qcow2::compress(CompressedRequest& request, const IoVector& iov, unsigned level) {
  const size_t count = request.pieces.size();
  for (size_t i = 0; i < count; ++i) {
    const uint64_t from = i * request.cluster_bytes;
    const uint64_t bytes = std::min(request.cluster_bytes, iov.size() - from);
    const IoVector part = iov.slice(from, bytes);
    if (part.pieces().size() == 1 && bytes == request.cluster_bytes) {
      request.pieces[i].plain = {static_cast<const std::byte*>(part.pieces().front().iov_base), bytes};
      continue;
    }
    AlignedBuffer& copy = request.copies.emplace_back(request.cluster_bytes);
    part.copy_to(0, copy.span().first(bytes));
    std::ranges::fill(copy.span().subspan(bytes), std::byte{0});  // behind the end of the disk
    request.pieces[i].plain = copy.span();
  }

  const CompressionType type = compression_type_;
  auto compress_some = [&request, type, level](size_t from, size_t to) -> Result<void> {
    for (size_t i = from; i < to; ++i) {
      CompressedRequest::Piece& piece = request.pieces[i];
      const auto stream = COIMG_TRY(compress_cluster(type, level, piece.plain, request.stream_space(i)));
      piece.stream_bytes = stream.value_or(0);
    }
    return {};
  };
  const size_t per_job = std::max<uint64_t>(1, kJobBytes / request.cluster_bytes);
  if (count <= per_job) return co_run_on_worker([&] { return compress_some(0, count); });

  std::optional<Error> failure;
  CoGroup jobs;
  for (size_t from = 0; from < count; from += per_job) {
    jobs.start(
        [&, from]() coroutine_fn {
          auto outcome = co_run_on_worker([&] { return compress_some(from, std::min(from + per_job, count)); });
          if (!outcome.ok() && !failure) failure = std::move(outcome).error();
        },
        "compress");
  }
  jobs.wait_all();
  if (failure) return *std::move(failure);
  return {};
}

// --- place ---------------------------------------------------------------------------------------------------------

/// Allocates host space for all pieces in guest order. Errors: EIO when a guest cluster is in use already.
Result<void> Qcow2::place_compressed_locked(CompressedRequest& request) {
  for (size_t i = 0; i < request.pieces.size();) {
    const GuestOffset guest = request.first + i * request.cluster_bytes;
    const HostOffset table = COIMG_TRY(ensure_l2_table_locked(guest));
    const L2Slice slice = COIMG_TRY(load_l2_slice_locked(table, geometry_.l2_index(guest)));
    for (size_t index = slice.index; index < slice.entries.size() && i < request.pieces.size(); ++index, ++i) {
      const ClusterType type = slice.entries[index].type();
      if (type == ClusterType::kUnallocated || type == ClusterType::kZeroPlain) continue;
      return Error(EIO, fmt::format("the cluster at guest offset {:#x} has been written already and cannot be "
                                    "overwritten compressed",
                                    request.first.v + i * request.cluster_bytes));
    }
  }

  size_t placed = 0;
  auto place_rest = [&]() coroutine_fn CO_REQUIRES(lock_) -> Result<void> {
    while (placed < request.pieces.size()) {
      auto& piece = request.pieces[placed];
      if (!piece.compressed()) {
        piece.host = geometry_.host_offset(COIMG_TRY(refcounts_->allocate(ClusterCount(1))));
        ++placed;
        COIMG_TRY(check_overlap_locked(piece.host, request.cluster_bytes));
        continue;
      }
      std::vector<uint64_t> lengths;
      for (size_t i = placed; i < request.pieces.size() && request.pieces[i].compressed(); ++i) {
        lengths.push_back(request.pieces[i].stream_bytes);
      }
      const std::vector<HostOffset> offsets = COIMG_TRY(refcounts_->allocate_streams(lengths));
      const size_t first = placed;
      placed += offsets.size();
      for (size_t i = 0; i < offsets.size(); ++i) request.pieces[first + i].host = offsets[i];
      for (size_t i = 0; i < offsets.size(); ++i) COIMG_TRY(check_overlap_locked(offsets[i], lengths[i]));
    }
    return {};
  };
  auto outcome = place_rest();
  if (!outcome.ok()) {
    request.pieces.resize(placed);
    abandon_compressed(request);
  }
  return outcome;
}

/// Frees the space of pieces that have not been linked.
void Qcow2::abandon_compressed(const CompressedRequest& request) {
  for (size_t i = request.linked; i < request.pieces.size(); ++i) {
    const HostOffset host = request.pieces[i].host;
    const HostCluster first = geometry_.host_cluster(host);
    const HostCluster last = geometry_.host_cluster(host + (request.stored(i).size() - 1));
    refcounts_->free_best_effort(first, ClusterCount(last - first + 1));
  }
}

// --- write and link ------------------------------------------------------------------------------------------------

/// Writes what lies one behind the other in the file at once.
Result<void> Qcow2::write_streams(const CompressedRequest& request) {
  file_.debug_event(DebugEvent::kWriteCompressed);
  IoVector pending;
  HostOffset pending_host;
  for (size_t i = 0; i < request.pieces.size(); ++i) {
    const HostOffset host = request.pieces[i].host;
    if (pending.size() != 0 && host != pending_host + pending.size()) {
      COIMG_TRY(file_.co_pwritev(pending_host.v, pending));
      pending = IoVector();
    }
    if (pending.size() == 0) pending_host = host;
    const auto stored = request.stored(i);
    pending.add({const_cast<std::byte*>(stored.data()), stored.size()});  // only read by the write
  }
  return file_.co_pwritev(pending_host.v, pending);
}

Result<void> Qcow2::link_compressed_locked(CompressedRequest& request, DroppedReferences& dropped) {
  file_.debug_event(DebugEvent::kL2UpdateCompressed);
  while (request.linked < request.pieces.size()) {
    const std::span left = std::span(request.pieces).subspan(request.linked);
    request.linked += COIMG_TRY(update_entries_locked(
        request.first + request.linked * request.cluster_bytes, left.size(),
        [&](uint64_t i, L2Entry) {
          const auto& piece = left[i];
          return piece.compressed() ? L2Entry::compressed(geometry_, piece.host, piece.stream_bytes)
                                    : L2Entry::normal(piece.host);
        },
        dropped));
  }
  return {};
}

}  // namespace coimg::qcow2
