// BlockNode: an open image, and the path every request takes to its driver.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "block/debug_events.h"
#include "block/driver.h"
#include "block/request_tracker.h"
#include "block/util/result.h"

namespace coimg {

/// Where a range of the guest's disk comes from, looking through the backing chain.
struct ChainStatus {
  BlockStatus status;                ///< allocated: anywhere in the chain
  const BlockNode* layer = nullptr;  ///< the layer that decided
  unsigned depth = 0;                ///< 0 for the top
};

/// An open image with its children. Requests are byte-granular: the node checks bounds, aligns (read-modify-write under
/// a serialising request), splits, tracks overlaps and applies the rate limit, then calls the driver.
///
/// Context: all requests come from the AioContext that opened it. close() must have run before the destructor.
class BlockNode {
 public:
  BlockNode(std::string filename, OpenFlags flags);
  ~BlockNode();
  BlockNode(const BlockNode&) = delete;
  BlockNode& operator=(const BlockNode&) = delete;

  // --- requests -------------------------------------------------------------------------------------------------
  /// EINVAL when the range passes the end (rounded up to a sector); EIO and others as the driver says. Protocol nodes
  /// are files: what lies beyond their end reads as zeros, and writing there extends them.
  Result<void> co_preadv(uint64_t offset, const IoVector& iov) coroutine_fn;
  Result<void> co_pread(uint64_t offset, std::span<std::byte> memory) coroutine_fn;
  /// EACCES on a read-only node.
  Result<void> co_pwritev(uint64_t offset, const IoVector& iov, const WriteOptions& options = {}) coroutine_fn;
  Result<void> co_pwrite(uint64_t offset, std::span<const std::byte> memory, const WriteOptions& options = {})
      coroutine_fn;
  /// Falls back to writing zeros for what the driver does not support, unless options.no_fallback: then ENOTSUP, with
  /// part of the range zeroed perhaps.
  Result<void> co_pwrite_zeroes(uint64_t offset, uint64_t bytes, const ZeroOptions& options = {}) coroutine_fn;
  /// Gives ranges of a file their space before they are written; see BlockDriver. EACCES on a read-only node.
  Result<void> co_reserve(std::span<const ByteRange> ranges) coroutine_fn;
  /// Advice: clipped to the length and to what the driver can act on; possibly nothing happens.
  Result<void> co_pdiscard(uint64_t offset, uint64_t bytes) coroutine_fn;
  Result<void> co_pwrite_compressed(uint64_t offset, const IoVector& iov, const WriteOptions& options = {})
      coroutine_fn;
  /// Nothing to do when nothing was written since the last flush, or when opened with no_flush.
  Result<void> co_flush() coroutine_fn;
  Result<void> co_truncate(uint64_t new_length, Preallocation preallocation = Preallocation::kOff) coroutine_fn;

  /// This layer only; `zero` refined by the file below when the driver asks for it. The range is clipped to the length;
  /// the result is empty only when nothing of it is left.
  Result<BlockStatus> co_block_status(uint64_t offset, uint64_t bytes, bool want_zero = true) coroutine_fn;
  /// Through the chain, from this layer down to (not including) `base`; null for all of it. `layer` is the first one
  /// that has the range allocated, else the deepest one that is long enough to have it: behind the end of its backing
  /// file a layer hides what lies deeper. What nobody has is zero, unless `base` has to be asked for it.
  Result<ChainStatus> co_chain_status(uint64_t offset, uint64_t bytes, const BlockNode* base = nullptr,
                                      bool want_zero = true) coroutine_fn;

  Result<ImageInfo> co_info() coroutine_fn;
  /// See BlockDriver. Nothing else may be in flight. The first three need a writable node, the last one a read-only
  /// one.
  Result<void> co_create_snapshot(const std::string& name) coroutine_fn;
  Result<void> co_apply_snapshot(const SnapshotSelector& selector) coroutine_fn;
  Result<void> co_delete_snapshot(const SnapshotSelector& selector) coroutine_fn;
  Result<void> co_show_snapshot(const SnapshotSelector& selector) coroutine_fn;
  /// See BlockDriver. Nothing else may be in flight. All but the last one need a writable node.
  Result<void> co_add_bitmap(const BitmapInfo& bitmap) coroutine_fn;
  Result<void> co_remove_bitmap(const std::string& name) coroutine_fn;
  Result<void> co_clear_bitmap(const std::string& name) coroutine_fn;
  Result<void> co_set_bitmap_recording(const std::string& name, bool recording) coroutine_fn;
  Result<void> co_merge_bitmap(const std::string& name, BlockNode& source, const std::string& source_name) coroutine_fn;
  Result<void> co_visit_bitmap(const std::string& name, const DirtyVisitor& visitor) coroutine_fn;
  /// See BlockDriver. Writing needs a writable node.
  Result<void> co_preadv_vm_state(uint64_t offset, const IoVector& iov) coroutine_fn;
  Result<void> co_pwritev_vm_state(uint64_t offset, const IoVector& iov) coroutine_fn;
  Result<CheckResult> co_check(const CheckOptions& options) coroutine_fn;
  /// See BlockDriver. The node has to be writable, and nothing else may be in flight.
  Result<void> co_change_backing_file(const std::string& name, const std::string& format) coroutine_fn;
  Result<void> co_make_empty() coroutine_fn;
  Result<void> co_amend(const CreateOptions& options, const ProgressCallback& on_progress) coroutine_fn;
  Result<std::optional<uint64_t>> co_allocated_file_size() coroutine_fn;

  /// Flushes, closes the driver, then the children; the first error is returned, all is closed in any case.
  Result<void> co_close() coroutine_fn;

  /// Tells the node's fault injector, if it has one, that `event` takes place.
  void debug_event(DebugEvent event) coroutine_fn {
    if (debugger_) [[unlikely]]
      debugger_->on_event(event);
  }

  // --- what it is ---------------------------------------------------------------------------------------------------
  [[nodiscard]] const std::string& filename() const { return filename_; }  ///< canonical, as output shows it
  /// The file at the bottom, for errors: what to look at when a request fails.
  [[nodiscard]] const std::string& subject() const { return file_ ? file_->subject() : filename_; }
  /// Length in bytes, rounded up to 512: what a guest sees.
  [[nodiscard]] uint64_t length() const;
  /// What the driver says, to the byte (protocol nodes, raw files of odd length).
  [[nodiscard]] uint64_t exact_length() const { return driver_->length(); }
  [[nodiscard]] const OpenFlags& flags() const { return flags_; }
  [[nodiscard]] bool writable() const { return flags_.writable; }
  [[nodiscard]] BlockDriver& driver() const { return *driver_; }
  [[nodiscard]] const DriverType& type() const { return driver_->type(); }
  [[nodiscard]] BlockNode* file() const { return file_.get(); }
  [[nodiscard]] BlockNode* data_file() const { return data_file_.get(); }  ///< null: the data are in file()
  [[nodiscard]] BlockNode* backing() const { return backing_.get(); }
  [[nodiscard]] const BlockLimits& limits() const { return limits_; }
  /// The largest compression_unit of the backing chain.
  [[nodiscard]] uint64_t chain_compression_unit() const;
  /// The host file's identity at the bottom, for "the same file": nothing for protocols without one.
  struct FileIdentity {
    uint64_t device, inode;
    friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
  };
  [[nodiscard]] std::optional<FileIdentity> file_identity() const;
  /// Whether this node or one of its backing chain has that file, or has its data there.
  [[nodiscard]] bool chain_has_file(const FileIdentity& identity) const;

  /// The fault injector of this node or of the nearest one below it; null for none.
  [[nodiscard]] BlockDebugger* find_debugger() const {
    return debugger_ || !file_ ? debugger_ : file_->find_debugger();
  }

  // --- building the tree (block/open.cc, and drivers' tests) --------------------------------------------------------
  void set_file(std::unique_ptr<BlockNode> file) { file_ = std::move(file); }
  void set_data_file(std::unique_ptr<BlockNode> data_file) { data_file_ = std::move(data_file); }
  void set_backing(std::unique_ptr<BlockNode> backing) { backing_ = std::move(backing); }
  void set_driver(std::unique_ptr<BlockDriver> driver);
  void set_filename(std::string filename) { filename_ = std::move(filename); }
  void set_debugger(BlockDebugger* debugger) { debugger_ = debugger; }  ///< outlives the node's last request
  void set_file_identity(FileIdentity identity) { identity_ = identity; }
  /// Raw images that were probed must not become another format: writes of block 0 are looked at (cli.md 2.8).
  void protect_from_format_change(const DriverRegistry& registry) { protect_registry_ = &registry; }
  /// Limits this node's writes to `bytes_per_second`; 0 for no limit. `lifted`: see RateLimiter.
  void set_rate_limit(uint64_t bytes_per_second, std::function<bool()> lifted = {});
  /// The same with a limit that is shared with other nodes of this context, and comes on top; empty for none.
  void share_rate_limit(std::shared_ptr<class RateLimiter> limiter) { shared_rate_limiter_ = std::move(limiter); }

 private:
  /// Says which file an error is about, and where in it if this node is that file.
  template <typename T>
  [[nodiscard]] Result<T> locate(Result<T> result, uint64_t offset) const {
    if (result.ok()) [[likely]]
      return result;
    result = std::move(result).in_file(subject());
    return is_protocol_ ? std::move(result).at(offset) : std::move(result);
  }
  Result<void> check_request(uint64_t offset, uint64_t bytes, bool write) const;
  Result<void> read_padded(uint64_t offset, const IoVector& iov) coroutine_fn;
  Result<void> read_aligned(uint64_t offset, const IoVector& iov) coroutine_fn;
  Result<void> read_block(uint64_t offset, std::span<std::byte> block) coroutine_fn;
  Result<void> write_bytes(uint64_t offset, const IoVector& iov, PlacementOrder::Ticket* placement) coroutine_fn;
  Result<void> write_padded(uint64_t offset, const IoVector& iov, PlacementOrder::Ticket* placement) coroutine_fn;
  Result<void> trim_to(uint64_t end) coroutine_fn;
  Result<void> write_aligned(uint64_t offset, const IoVector& iov, PlacementOrder::Ticket* placement) coroutine_fn;
  Result<void> write_split(uint64_t offset, const IoVector& iov, PlacementOrder::Ticket* placement) coroutine_fn;
  Result<void> zero_piece(uint64_t offset, uint64_t bytes, const ZeroOptions& options) coroutine_fn;
  Result<void> write_zero_buffers(uint64_t offset, uint64_t bytes) coroutine_fn;
  void take_rate(uint64_t bytes) coroutine_fn;
  Result<void> end_of_write(bool force_unit_access) coroutine_fn;
  [[nodiscard]] bool touches_protected_sector(uint64_t offset) const;
  Result<void> check_format_change(uint64_t offset, uint64_t bytes, const IoVector* iov) coroutine_fn;
  Result<void> close_layer() coroutine_fn;
  void refresh_limits();

  std::string filename_;
  OpenFlags flags_;
  std::unique_ptr<BlockDriver> driver_;
  std::unique_ptr<BlockNode> file_;
  std::unique_ptr<BlockNode> data_file_;
  std::unique_ptr<BlockNode> backing_;
  std::optional<FileIdentity> identity_;
  BlockDebugger* debugger_ = nullptr;
  BlockLimits limits_;
  bool is_protocol_ = false;
  RequestTracker tracker_;  ///< what changes the image; reads need not wait for anybody
  const DriverRegistry* protect_registry_ = nullptr;
  std::unique_ptr<class RateLimiter> rate_limiter_;
  std::shared_ptr<class RateLimiter> shared_rate_limiter_;
  uint64_t write_generation_ = 0;    ///< counts changes
  uint64_t flushed_generation_ = 0;  ///< the changes that the last flush made durable
  bool closed_ = false;
};

}  // namespace coimg
