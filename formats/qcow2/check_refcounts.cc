// Checker, refcounts: the refcount table, its blocks, and how the refcounts compare with what was counted. See check.h.
//
// Format: qcow2, section "Refcounts".
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "block/util/buffer.h"
#include "block/util/cpu.h"
#include "formats/qcow2/check.h"
#include "formats/qcow2/ordered_reads.h"
#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {
namespace {

constexpr unsigned kBlocksInFlight = 8;

/// Refcounts that are compared at once before the differences among them are looked for.
constexpr uint64_t kGroup = 256;
static_assert(ClusterCounts::kPieceClusters % kGroup == 0);

/// What a comparison of refcounts with counters found.
struct GroupFindings {
  uint16_t wrong = 0;   ///< not 0: a refcount differs from its counter, or a mark does not fit to it
  uint16_t in_use = 0;  ///< not 0: a cluster is in use
};

/// Has no branch inside, so that compilers turn it into vector code where `count` is known to them.
[[gnu::always_inline]] inline void compare_group(const uint8_t* counters, const be16* refcounts, uint64_t count,
                                                 GroupFindings& findings) {
  uint16_t wrong = 0, in_use = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const uint16_t counter = counters[i];
    const uint16_t counted = counter & ClusterCounts::kCountMask;
    const uint16_t refcount = refcounts[i];
    wrong |= static_cast<uint16_t>(counted ^ refcount);
    wrong |= static_cast<uint16_t>(refcount != 1 ? counter & ClusterCounts::kSeenCopied
                                                 : counter & ClusterCounts::kSeenUncopied);
    wrong |= static_cast<uint16_t>(counted == ClusterCounts::kNarrowMax);
    in_use |= counted;
  }
  findings.wrong |= wrong;
  findings.in_use |= in_use;
}

[[gnu::always_inline]] inline GroupFindings compare_all(const uint8_t* counters, const be16* refcounts,
                                                        uint64_t count) {
  constexpr uint64_t kBlock = 32;
  GroupFindings findings;
  uint64_t done = 0;
  for (; count - done >= kBlock; done += kBlock) compare_group(counters + done, refcounts + done, kBlock, findings);
  compare_group(counters + done, refcounts + done, count - done, findings);
  return findings;
}

using CompareAll = GroupFindings (*)(const uint8_t*, const be16*, uint64_t);

GroupFindings compare_all_anywhere(const uint8_t* counters, const be16* refcounts, uint64_t count) {
  return compare_all(counters, refcounts, count);
}
COIMG_AVX2 GroupFindings compare_all_avx2(const uint8_t* counters, const be16* refcounts, uint64_t count) {
  return compare_all(counters, refcounts, count);
}

/// Compares `count` 16-bit refcounts with their narrow counters.
GroupFindings find_differences(const uint8_t* counters, const std::byte* refcounts, uint64_t count) {
  static const CompareAll best = processor_has_avx2() ? compare_all_avx2 : compare_all_anywhere;
  return best(counters, reinterpret_cast<const be16*>(refcounts), count);
}

}  // namespace

Result<void> Checker::load_refcount_table() {
  const uint64_t bytes = uint64_t{header_.refcount_table_clusters} << geometry_.cluster_bits();
  AlignedBuffer table(bytes);
  const Result<void> status = read_padded(file_, header_.refcount_table_offset, table.span());
  if (!status.ok()) {
    report_unreadable("refcount table", header_.refcount_table_offset, status.error());
    return {};
  }
  const auto* entries = reinterpret_cast<const be64*>(table.data());
  refcount_table_.assign(entries, entries + bytes / 8);
  while (!refcount_table_.empty() && refcount_table_.back() == 0) refcount_table_.pop_back();
  return {};
}

HostOffset Checker::block_offset(uint64_t index) const {
  return HostOffset(refcount_table_[index] & kRefcountTableOffsetMask);
}

Checker::BlockState Checker::block_state(uint64_t index) const {
  if (index >= refcount_table_.size()) return BlockState::kAbsent;
  const HostOffset offset = block_offset(index);
  if (!is_aligned(offset.v, geometry_.cluster_size())) return BlockState::kUnaligned;
  if (offset.v >= kMaxFileOffset) return BlockState::kUnreachable;
  // Behind the end of the file there are only zeros.
  return offset.v == 0 || offset.v >= file_bytes_ ? BlockState::kAbsent : BlockState::kUsable;
}

void Checker::count_refcount_structures() {
  add_metadata(header_.refcount_table_offset, uint64_t{header_.refcount_table_clusters} << geometry_.cluster_bits(), 1,
               Metadata::kRefcountTable);
  const auto corrupted = [this](std::string_view line) {
    report(line);
    ++result_.corruptions;
  };
  for (size_t i = 0; i < refcount_table_.size(); ++i) {
    if (refcount_table_[i] == 0) continue;
    const HostOffset block = block_offset(i);
    if (refcount_table_[i] & kRefcountTableReservedMask) {
      corrupted(fmt::format("ERROR refcount table entry {} has reserved bits set", i));
      needs_rebuild_ = true;
    } else if (block_state(i) == BlockState::kUnaligned) {
      corrupted(fmt::format("ERROR refcount block {} is not cluster aligned; refcount table entry corrupted", i));
      needs_rebuild_ = true;
    } else if (block.v >= file_bytes_) {
      corrupted(fmt::format("{} refcount block {} is outside image", repair_entries_ ? "Repairing" : "ERROR", i));
      blocks_outside_.push_back(i);
      if (repair_entries_ && block_state(i) == BlockState::kUnreachable) needs_rebuild_ = true;
    } else {
      // Marked like the data around them, so that all the counters there are the same and take no memory. If one has
      // a wrong refcount, the tables are read a second time for nothing.
      add_metadata(block, geometry_.cluster_size(), 1, Metadata::kOther, ClusterCounts::kSeenCopied);
      const uint64_t count = counts_->get(geometry_.host_cluster(block));
      if (count == 1) continue;
      corrupted(fmt::format("ERROR refcount block {} refcount={}", i, count));
      needs_rebuild_ = true;
    }
  }
}

// --- the stored refcounts -------------------------------------------------------------------------------------------

/// Goes through the clusters of the file in order and calls `on_difference` where refcount and count differ; blocks
/// that it gives new values for are written back. Blocks that cannot be read are findings; without `count_errors` they
/// are errors, and those at an impossible place are left out.
Result<void> Checker::walk_refcounts(bool count_errors, const OnDifference& on_difference) {
  const uint64_t per_block = geometry_.refcounts_per_block();
  const uint64_t end = end_of_use().v;
  const auto clusters_of = [&](uint64_t index) { return std::min(per_block, end - index * per_block); };
  uint64_t next = 0;

  const auto next_block = [&]() -> std::optional<OrderedRead> {
    for (; next * per_block < end; ++next) {
      const BlockState state = block_state(next);
      const HostCluster first(next * per_block);
      if (state == BlockState::kAbsent && counts_->untouched(first, first + clusters_of(next))) continue;
      const uint64_t index = next++;
      if (state != BlockState::kUsable) return OrderedRead{HostOffset(0), 0, index};
      const uint64_t bytes = div_ceil(clusters_of(index) << geometry_.refcount_order(), 8);
      return OrderedRead{block_offset(index), align_up(bytes, kSectorSize), index};
    }
    return std::nullopt;
  };
  const auto compare_next = [&](const OrderedRead& read, const Result<void>& status, std::span<std::byte> bytes)
                                coroutine_fn -> Result<void> {
    COIMG_TRY(check_not_stopped());
    const HostCluster first(read.tag * per_block);
    const uint64_t count = clusters_of(read.tag);
    const BlockState state = block_state(read.tag);
    if (state == BlockState::kUnaligned || state == BlockState::kUnreachable) {
      if (count_errors) report_unknown_refcounts(read.tag, first, count);
      return {};
    }
    if (!status.ok()) {
      if (!count_errors) return status;
      report_unreadable("refcount block", read.offset, status.error());
      return {};
    }
    if (compare_block(first, count, bytes.empty() ? nullptr : bytes.data(), on_difference)) {
      return file_.co_pwrite(read.offset.v, bytes).with_context("storing corrected refcounts");
    }
    return {};
  };
  return read_in_order(file_, kBlocksInFlight, geometry_.cluster_size(), next_block, compare_next);
}

/// Of a block at an impossible place.
void Checker::report_unknown_refcounts(uint64_t block, HostCluster first, uint64_t count) {
  if (block_state(block) == BlockState::kUnaligned) {
    (void)image_.corruption(image_.refcounts_->unaligned_block_message(block), false);
  }
  for (uint64_t i = 0; i < count; ++i) {
    report(fmt::format("Can't get refcount for cluster {}: Input/output error", first.v + i));
    ++result_.check_errors;
  }
}

/// Compares the clusters of one block (null: all zeros). Returns whether the block was changed.
bool Checker::compare_block(HostCluster first, uint64_t count, std::byte* block, const OnDifference& on_difference) {
  bool changed = false;
  for (uint64_t done = 0; done < count;) {
    // Up to the end of the group, which never crosses a piece of the counters.
    const HostCluster cluster = first + done;
    const bool has_counts = !counts_->untouched(cluster, cluster + 1);
    const uint64_t unit = has_counts ? kGroup : ClusterCounts::kPieceClusters;
    const uint64_t run = std::min(count - done, align_down(cluster.v, unit) + unit - cluster.v);
    if (has_counts || block) changed |= compare_run(cluster, run, block, done, on_difference);
    done += run;
  }
  return changed;
}

/// Compares `count` clusters with the refcounts from `index` on. Returns whether the block was changed.
bool Checker::compare_run(HostCluster first, uint64_t count, std::byte* block, uint64_t index,
                          const OnDifference& on_difference) {
  std::array<uint8_t, kGroup> counters;
  const uint32_t order = geometry_.refcount_order();
  const bool has_counts = !counts_->untouched(first, first + 1);
  if (has_counts) {
    counts_->read(first, std::span(counters).first(count));
  } else if (block && (index << order) % 8 == 0 && (count << order) % 8 == 0 &&
             is_zero({block + (index << order) / 8, (count << order) / 8})) {
    return false;
  }
  if (has_counts && block && order == 4) {
    const GroupFindings findings = find_differences(counters.data(), block + index * 2, count);
    if (findings.wrong == 0) {
      for (uint64_t i = count; findings.in_use != 0 && i-- > 0;) {
        if ((counters[i] & ClusterCounts::kCountMask) == 0) continue;
        note_use(first + i);
        break;
      }
      return false;
    }
  }

  bool changed = false;
  for (uint64_t i = 0; i < count; ++i) {
    const uint8_t counter = has_counts ? counters[i] : 0;
    const uint64_t stored = block ? read_refcount(block, index + i, order) : 0;
    if (counter == 0 && stored == 0) continue;
    const HostCluster cluster = first + i;
    const uint8_t narrow = counter & ClusterCounts::kCountMask;
    const uint64_t counted = narrow == ClusterCounts::kNarrowMax ? counts_->get(cluster) : narrow;
    if (counted != 0 || stored != 0) note_use(cluster);
    note_copied(counter, stored);
    if (stored == counted) continue;
    const std::optional<uint64_t> corrected = on_difference(cluster, stored, counted);
    if (!corrected) continue;
    note_copied(counter, *corrected);
    assert(block);
    write_refcount(block, index + i, order, *corrected);
    changed = true;
  }
  return changed;
}

/// COPIED is right when it is set exactly where the refcount is one.
void Checker::note_copied(uint8_t counter, uint64_t refcount) {
  const uint8_t wrong = refcount == 1 ? ClusterCounts::kSeenUncopied : ClusterCounts::kSeenCopied;
  if (counter & wrong) copied_suspect_ = true;
}

Result<void> Checker::compare() {
  const auto note = [this](HostCluster cluster, uint64_t stored, uint64_t counted) -> std::optional<uint64_t> {
    const bool leak = stored > counted;
    report(
        fmt::format("{} cluster {} refcount={} reference={}", leak ? "Leaked" : "ERROR", cluster.v, stored, counted));
    ++(leak ? result_.leaks : result_.corruptions);
    if (!leak) ++low_refcounts_;
    if (stored == 0) needs_rebuild_ = true;
    return std::nullopt;
  };
  COIMG_TRY(walk_refcounts(true, note));
  result_.image_end_offset = geometry_.host_offset(HostCluster(highest_used_ + 1)).v;
  return {};
}

Result<void> Checker::correct_refcounts(RepairMode mode) {
  assert(!needs_rebuild_);
  const auto correct = [this, mode](HostCluster cluster, uint64_t stored, uint64_t counted) -> std::optional<uint64_t> {
    const bool leak = stored > counted;
    if (leak && lost_references_) return std::nullopt;
    const bool allowed = leak || mode == RepairMode::kAll;
    report(fmt::format("{} cluster {} refcount={} reference={}", allowed ? "Repairing" : "ERROR", cluster.v, stored,
                       counted));
    if (!allowed) return std::nullopt;
    --(leak ? result_.leaks : result_.corruptions);
    if (!leak) --low_refcounts_;
    ++(leak ? result_.leaks_fixed : result_.corruptions_fixed);
    return counted;
  };
  return walk_refcounts(false, correct);
}

Result<void> Checker::raise_counts_to_stored() {
  return walk_refcounts(false, [this](HostCluster cluster, uint64_t stored, uint64_t counted) {
    if (stored > counted) counts_->set(cluster, stored);
    return std::optional<uint64_t>();
  });
}

Result<void> Checker::replace_counts_by_stored() {
  return walk_refcounts(false, [this](HostCluster cluster, uint64_t stored, uint64_t) {
    counts_->set(cluster, stored);
    return std::optional<uint64_t>();
  });
}

Result<uint64_t> Checker::stored_refcount(HostCluster cluster) {
  if (cluster < end_of_use()) return counts_->get(cluster);
  const uint64_t index = cluster.v / geometry_.refcounts_per_block();
  if (block_state(index) != BlockState::kUsable) return uint64_t{0};
  std::byte sector[kSectorSize];
  const uint64_t in_block = cluster.v % geometry_.refcounts_per_block();
  const uint64_t per_sector = (kSectorSize * 8) >> geometry_.refcount_order();
  COIMG_TRY(read_padded(file_, block_offset(index) + in_block / per_sector * kSectorSize, sector));
  return read_refcount(sector, in_block % per_sector, geometry_.refcount_order());
}

}  // namespace coimg::qcow2
