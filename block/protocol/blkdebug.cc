#include "block/protocol/blkdebug.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "block/node.h"
#include "block/protocol/blkdebug_options.h"
#include "block/util/math.h"
#include "coroutine/aio_context.h"
#include "coroutine/co_queue.h"
#include "coroutine/coroutine.h"
#include "coroutine/worker_pool.h"

namespace coimg {

namespace {

/// Far above any set of rules; /dev/zero must not fill the memory.
constexpr size_t kMaxConfigBytes = size_t{1} << 20;

/// The text of a configuration file. Blocks.
Result<std::string> read_config(const std::string& path) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) return Error::from_errno(errno != 0 ? errno : EIO, "Could not read blkdebug config file");
  std::string text(kMaxConfigBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxConfigBytes) return Error::from_errno(EFBIG, "Could not read blkdebug config file");
  return text;
}

/// Requests that stop at events. Belongs to one AioContext.
class Breakpoints {
 public:
  void add(DebugEvent event, const std::string& tag) { points_.push_back({event, tag}); }

  /// Returns whether there was one that nobody had come by.
  bool remove(const std::string& tag) {
    return std::erase_if(points_, [&](const Point& point) { return point.tag == tag; }) > 0;
  }
  void remove_all() { points_.clear(); }

  /// The tags of the event's breakpoints, which are gone by this: the newest one first.
  std::vector<std::string> take(DebugEvent event) {
    std::vector<std::string> tags;
    for (const Point& point : points_) {
      if (point.event == event) tags.insert(tags.begin(), point.tag);
    }
    std::erase_if(points_, [event](const Point& point) { return point.event == event; });
    return tags;
  }

 private:
  struct Point {
    DebugEvent event;
    std::string tag;
  };
  std::vector<Point> points_;
};

class Blkdebug final : public BlockDriver, public BlockDebugger {
 public:
  Blkdebug(const DriverType& type, BlockNode& node, BlkdebugOptions options)
      : type_(type), node_(node), image_(*node.file()), options_(std::move(options)) {
    options_.rules.on_event(DebugEvent::kNone);
  }

  const DriverType& type() const override { return type_; }
  uint64_t length() const override { return image_.exact_length(); }

  BlockLimits limits() const override {
    BlockLimits limits = image_.limits();
    limits.compression_unit = 0;
    if (options_.align != 0) limits.request_alignment = static_cast<uint32_t>(options_.align);
    limits.memory_alignment = 1;  // the image's own node looks after that
    if (options_.max_transfer >= limits.request_alignment) limits.max_transfer = options_.max_transfer;
    if (options_.opt_write_zero != 0) limits.zero_alignment = std::bit_floor(options_.opt_write_zero);
    if (options_.opt_discard != 0) limits.discard_alignment = std::bit_floor(options_.opt_discard);
    return limits;
  }

  Result<void> preadv(uint64_t offset, const IoVector& iov) coroutine_fn override {
    COIMG_TRY(fail_if_told(kBlkdebugRead, offset, iov.size()));
    return image_.co_preadv(offset, iov);
  }

  Result<void> pwritev(uint64_t offset, const IoVector& iov, const WriteOptions& options) coroutine_fn override {
    COIMG_TRY(fail_if_told(kBlkdebugWrite, offset, iov.size()));
    return image_.co_pwritev(offset, iov, options);
  }

  Result<void> pwrite_zeroes(uint64_t offset, uint64_t bytes, const ZeroOptions& options) coroutine_fn override {
    if (bytes < options_.opt_write_zero) return Error::from_errno(ENOTSUP);  // is written as data
    return in_steps(offset, bytes, options_.max_write_zero, [&](uint64_t start, uint64_t step) coroutine_fn {
      auto failed = fail_if_told(kBlkdebugWriteZeroes, start, step);
      return failed.ok() ? image_.co_pwrite_zeroes(start, step, options) : failed;
    });
  }

  Result<void> reserve(std::span<const ByteRange> ranges) coroutine_fn override { return image_.co_reserve(ranges); }

  Result<void> pdiscard(uint64_t offset, uint64_t bytes) coroutine_fn override {
    if (bytes < options_.opt_discard) return Error::from_errno(ENOTSUP);
    return in_steps(offset, bytes, options_.max_discard, [&](uint64_t start, uint64_t step) coroutine_fn {
      auto failed = fail_if_told(kBlkdebugDiscard, start, step);
      return failed.ok() ? image_.co_pdiscard(start, step) : failed;
    });
  }

  Result<void> flush() coroutine_fn override {
    COIMG_TRY(fail_if_told(kBlkdebugFlush, 0, 0));
    return image_.co_flush();
  }

  Result<BlockStatus> block_status(uint64_t offset, uint64_t bytes, bool want_zero) coroutine_fn override {
    COIMG_TRY(fail_if_told(kBlkdebugBlockStatus, offset, bytes));
    auto status = COIMG_TRY(image_.co_chain_status(offset, bytes, nullptr, want_zero)).status;
    if (status.bytes == 0) status = BlockStatus{.bytes = bytes, .zero = true};  // cut off meanwhile
    // Here it is at the offset that was asked for, wherever the image or what is below it has it.
    status.host_offset = offset;
    status.file = &node_;
    status.ask_file = false;
    return status;
  }

  Result<void> truncate(uint64_t new_length, Preallocation preallocation) coroutine_fn override {
    return image_.co_truncate(new_length, preallocation);
  }

  /// What concerns the image as a disk. What is below it or kept beside the disk is not this node's.
  Result<ImageInfo> info() coroutine_fn override {
    const ImageInfo below = COIMG_TRY(image_.co_info());
    ImageInfo info;
    info.cluster_size = below.cluster_size;
    info.encrypted = below.encrypted;
    info.dirty = below.dirty;
    info.vm_state_offset = below.vm_state_offset;
    return info;
  }

  bool created_reads_as_zeros() const override { return image_.driver().created_reads_as_zeros(); }

  Result<void> set_permissions(const Permissions& permissions) coroutine_fn override {
    if (image_.type().kind() == DriverKind::kFormat) return {};  // has those that it needs since it is open
    return image_.driver().set_permissions({.used = permissions.used | options_.taken_permissions,
                                            .shared = permissions.shared & ~options_.unshared_permissions});
  }

  // BlockDebugger; contracts there.
  void on_event(DebugEvent event) coroutine_fn override {
    options_.rules.on_event(event);
    const std::vector<std::string> tags = breakpoints_.take(event);
    if (tags.empty()) return;
    const uint64_t request = ++last_request_;
    for (const std::string& tag : tags) {
      suspended_.push_back({request, tag});
      tell(fmt::format("blkdebug: Suspended request '{}'", tag));
    }
    // With several tags it takes as many resumptions.
    while (std::ranges::find(suspended_, request, &Suspended::request) != suspended_.end()) resumed_.wait();
  }

  Result<void> add_breakpoint(std::string_view event, const std::string& tag) override {
    const auto found = find_debug_event(event);
    if (!found) return Error::from_errno(ENOENT);
    breakpoints_.add(*found, tag);
    return {};
  }

  Result<void> remove_breakpoint(const std::string& tag) override {
    const bool removed = breakpoints_.remove(tag);
    while (resume_first(tag)) continue;
    return removed ? Result<void>() : Error::from_errno(ENOENT);
  }

  Result<void> resume(const std::string& tag) override {
    return resume_first(tag) ? Result<void>() : Error::from_errno(ENOENT);
  }

  [[nodiscard]] bool is_suspended(const std::string& tag) const override {
    return std::ranges::find(suspended_, tag, &Suspended::tag) != suspended_.end();
  }

  [[nodiscard]] unsigned suspended_requests() const override {
    std::vector<uint64_t> requests;
    for (const Suspended& each : suspended_) requests.push_back(each.request);  // in ascending order
    return static_cast<unsigned>(std::ranges::unique(requests).begin() - requests.begin());
  }

  void release_all() override {
    breakpoints_.remove_all();
    suspended_.clear();
    resumed_.restart_all();
  }

 private:
  struct Suspended {
    uint64_t request;
    std::string tag;
  };

  Result<void> fail_if_told(BlkdebugIo io, uint64_t offset, uint64_t bytes) coroutine_fn {
    const auto failure = options_.rules.find_failure(io, offset, bytes);
    if (!failure) [[likely]]
      return {};
    if (!failure->immediately) {  // errors of real devices do not come at once either
      AioContext::current().co_schedule(Coroutine::self());
      Coroutine::yield();
    }
    return Error::from_errno(failure->errnum);
  }

  /// Calls `act` for the pieces of a range; no limit when `largest` is 0.
  template <typename Act>
  Result<void> in_steps(uint64_t offset, uint64_t bytes, uint64_t largest, Act act) coroutine_fn {
    for (uint64_t done = 0; done < bytes;) {
      const uint64_t step = largest == 0 ? bytes : std::min(largest, bytes - done);
      COIMG_TRY(act(offset + done, step));
      done += step;
    }
    return {};
  }

  bool resume_first(const std::string& tag) {
    const auto found = std::ranges::find(suspended_, tag, &Suspended::tag);
    if (found == suspended_.end()) return false;
    tell(fmt::format("blkdebug: Resuming request '{}'", tag));
    suspended_.erase(found);
    resumed_.restart_all();
    return true;
  }

  // Constant after open, but for the rules' state.
  const DriverType& type_;
  BlockNode& node_;
  BlockNode& image_;
  BlkdebugOptions options_;

  Breakpoints breakpoints_;
  std::vector<Suspended> suspended_;  ///< in the order of suspension
  uint64_t last_request_ = 0;
  CoQueue resumed_;
};

class BlkdebugType final : public DriverType {
 public:
  std::string_view name() const override { return "blkdebug"; }
  DriverKind kind() const override { return DriverKind::kProtocol; }
  std::string_view child_key() const override { return "image"; }
  bool has_option_names() const override { return true; }

  Result<void> parse_name(const std::string& name, Options& options) const override {
    return parse_blkdebug_name(name, options);
  }

  Result<std::unique_ptr<BlockDriver>> open(OpenArgs args) const coroutine_fn override {
    (void)args.options->take_text("filename");  // the image has the name
    std::string config_text;
    const auto config = args.options->take_text("config");
    if (config) config_text = COIMG_TRY(co_run_on_worker([&] { return read_config(*config); }));
    BlkdebugOptions options = COIMG_TRY(take_blkdebug_options(*args.options, config_text));
    BlockNode& node = *args.node;
    if (options.plain && !node.file()->filename().starts_with("json:")) {
      node.set_filename(fmt::format("blkdebug:{}:{}", config.value_or(""), node.file()->filename()));
    }
    auto driver = std::make_unique<Blkdebug>(*this, node, std::move(options));
    node.set_debugger(driver.get());
    return driver;
  }
};

}  // namespace

std::unique_ptr<DriverType> make_blkdebug_driver_type() { return std::make_unique<BlkdebugType>(); }

}  // namespace coimg
