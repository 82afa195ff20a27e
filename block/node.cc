// BlockNode: its life, and the requests that concern the image as a whole. node_io.cc has the path of reads and writes,
// node_status.cc tells where data lies.
#include "block/node.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <utility>

#include "block/throttle.h"
#include "block/util/buffer.h"
#include "block/util/math.h"

namespace coimg {

BlockNode::BlockNode(std::string filename, OpenFlags flags) : filename_(std::move(filename)), flags_(flags) {}

BlockNode::~BlockNode() {
  assert((closed_ || !driver_) && "co_close() has to run before a node is destroyed");
  driver_.reset();  // before the children that it refers to
}

void BlockNode::set_driver(std::unique_ptr<BlockDriver> driver) {
  assert(!driver_);
  driver_ = std::move(driver);
  is_protocol_ = driver_->type().kind() == DriverKind::kProtocol;
  refresh_limits();
}

void BlockNode::refresh_limits() {
  limits_ = driver_->limits();
  assert(std::has_single_bit(limits_.request_alignment) && limits_.request_alignment <= kMiB);
  assert(std::has_single_bit(limits_.memory_alignment) && limits_.memory_alignment <= AlignedBuffer::kAlignment);
  assert(std::has_single_bit(limits_.zero_alignment) && std::has_single_bit(limits_.discard_alignment));
  limits_.max_transfer = align_down(limits_.max_transfer, limits_.request_alignment);
  assert(limits_.max_transfer > 0);
}

void BlockNode::set_rate_limit(uint64_t bytes_per_second, std::function<bool()> lifted) {
  rate_limiter_ = bytes_per_second
                      ? std::make_unique<RateLimiter>(bytes_per_second, ClockType::kMonotonic, std::move(lifted))
                      : nullptr;
}

uint64_t BlockNode::chain_compression_unit() const {
  uint64_t largest = 0;
  for (const BlockNode* node = this; node != nullptr; node = node->backing()) {
    largest = std::max(largest, node->limits().compression_unit);
  }
  return largest;
}

uint64_t BlockNode::length() const { return align_up(exact_length(), kSectorSize); }

std::optional<BlockNode::FileIdentity> BlockNode::file_identity() const {
  if (identity_ || !file_) return identity_;
  return file_->file_identity();
}

bool BlockNode::chain_has_file(const FileIdentity& identity) const {
  for (const BlockNode* node = this; node != nullptr; node = node->backing()) {
    if (node->file_identity() == identity) return true;
    if (node->data_file() != nullptr && node->data_file()->file_identity() == identity) return true;
  }
  return false;
}

Result<void> BlockNode::co_flush() {
  if (flags_.no_flush) return {};
  // What is written while the flush runs may miss it and is left for the next one.
  const uint64_t generation = write_generation_;
  if (file_ && !is_protocol_) file_->debug_event(DebugEvent::kFlushToOs);
  // A format may have changed metadata on its own account, so it is always asked; its file knows what was written.
  if (is_protocol_ && generation == flushed_generation_) return {};
  if (is_protocol_) debug_event(DebugEvent::kFlushToDisk);
  COIMG_TRY(driver_->flush().in_file(subject()));
  flushed_generation_ = std::max(flushed_generation_, generation);
  return {};
}

Result<void> BlockNode::co_truncate(uint64_t new_length, Preallocation preallocation) {
  if (!flags_.writable) return Error(EACCES, "image is read-only");
  if (new_length > kMaxFileOffset - kMiB) return Error(EFBIG, "the new length is too large");
  // Nobody writes at the end while it moves.
  const uint64_t moving = std::min(exact_length(), new_length);
  const TrackedRequest request(tracker_, moving, UINT64_MAX - moving, RangeMode::kExclusive);
  auto result = driver_->truncate(new_length, preallocation);
  ++write_generation_;
  refresh_limits();
  return std::move(result).in_file(subject());
}

Result<ImageInfo> BlockNode::co_info() { return driver_->info().in_file(subject()); }

Result<void> BlockNode::co_create_snapshot(const std::string& name) {
  if (!flags_.writable) return Error(EACCES, "image is read-only");
  ++write_generation_;
  return driver_->create_snapshot(name).in_file(subject());
}

Result<void> BlockNode::co_apply_snapshot(const SnapshotSelector& selector) {
  if (!flags_.writable) return Error(EACCES, "image is read-only");
  auto applied = driver_->apply_snapshot(selector);
  ++write_generation_;
  refresh_limits();
  return std::move(applied).in_file(subject());
}

Result<void> BlockNode::co_delete_snapshot(const SnapshotSelector& selector) {
  if (!flags_.writable) return Error(EACCES, "image is read-only");
  ++write_generation_;
  return driver_->delete_snapshot(selector).in_file(subject());
}

Result<void> BlockNode::co_show_snapshot(const SnapshotSelector& selector) {
  assert(!flags_.writable);
  auto shown = driver_->show_snapshot(selector);
  refresh_limits();
  return std::move(shown).in_file(subject());
}

Result<void> BlockNode::co_preadv_vm_state(uint64_t offset, const IoVector& iov) {
  if (file_) file_->debug_event(DebugEvent::kVmStateLoad);
  return driver_->preadv_vm_state(offset, iov).in_file(subject());
}

Result<void> BlockNode::co_pwritev_vm_state(uint64_t offset, const IoVector& iov) {
  if (!flags_.writable) return Error(EACCES, "image is read-only");
  if (file_) file_->debug_event(DebugEvent::kVmStateSave);
  auto written = driver_->pwritev_vm_state(offset, iov);
  ++write_generation_;
  return std::move(written).in_file(subject());
}

Result<CheckResult> BlockNode::co_check(const CheckOptions& options) {
  class IgnoreFindings final : public CheckReporter {
    void finding(std::string_view) override {}
  };
  IgnoreFindings ignore;
  CheckOptions complete = options;
  if (!complete.reporter) complete.reporter = &ignore;
  if (complete.repair != RepairMode::kNone && !flags_.writable) return Error(EACCES, "image is read-only");
  return driver_->check(complete).in_file(subject());
}

Result<void> BlockNode::co_change_backing_file(const std::string& name, const std::string& format) {
  if (!flags_.writable) return Error(EACCES, "image is read-only");
  ++write_generation_;
  return driver_->change_backing_file(name, format).in_file(subject());
}

Result<void> BlockNode::co_make_empty() {
  if (!flags_.writable) return Error(EACCES, "image is read-only");
  ++write_generation_;
  if (file_) file_->debug_event(DebugEvent::kEmptyImagePrepare);
  return driver_->make_empty().in_file(subject());
}

Result<void> BlockNode::co_amend(const CreateOptions& options, const ProgressCallback& on_progress) {
  if (!flags_.writable) return Error(EACCES, "image is read-only");
  auto amended = driver_->amend(options, on_progress);
  ++write_generation_;
  refresh_limits();
  return std::move(amended).in_file(subject());
}

Result<std::optional<uint64_t>> BlockNode::co_allocated_file_size() {
  auto own = COIMG_TRY(driver_->allocated_file_size());
  if (own || !file_) return own;
  return file_->co_allocated_file_size();
}

Result<void> BlockNode::close_layer() {
  assert(!closed_);
  closed_ = true;
  Result<void> result;
  auto keep_first_error = [&result](Result<void> step) {
    if (result.ok() && !step.ok()) result = std::move(step);
  };
  if (driver_) {
    assert(tracker_.empty() && "a node is closed while requests are in flight");
    if (flags_.writable) keep_first_error(co_flush());
    keep_first_error(driver_->close().in_file(subject()));
  }
  if (data_file_) keep_first_error(data_file_->co_close());
  if (file_) keep_first_error(file_->co_close());
  return result;
}

Result<void> BlockNode::co_close() {
  Result<void> result;
  // Down the chain in a loop, as it may be long and this stack is not.
  for (BlockNode* node = this; node; node = node->backing_.get()) {
    auto closed = node->close_layer();
    if (result.ok() && !closed.ok()) result = std::move(closed).with_context(node->filename_);
  }
  return result;
}

}  // namespace coimg
