#include "block/protocol/null.h"

#include <cerrno>

#include <fmt/format.h>

#include "block/node.h"
#include "block/util/math.h"
#include "coroutine/aio_context.h"
#include "coroutine/co_sleep.h"
#include "coroutine/coroutine.h"

namespace coimg {

namespace {

constexpr uint64_t kDefaultSize = kGiB;

struct NullOptions {
  uint64_t size = kDefaultSize;
  int64_t latency_ns = 0;
  bool read_zeroes = false;
};

class NullDisk final : public BlockDriver {
 public:
  NullDisk(const DriverType& type, const BlockNode& node, NullOptions options, bool yields)
      : type_(type), node_(node), options_(options), yields_(yields) {}

  const DriverType& type() const override { return type_; }
  uint64_t length() const override { return options_.size; }

  Result<void> preadv(uint64_t, const IoVector& iov) coroutine_fn override {
    take_time();
    if (options_.read_zeroes) iov.fill(0, iov.size(), std::byte{0});
    return {};
  }

  Result<void> pwritev(uint64_t offset, const IoVector& iov, const WriteOptions&) coroutine_fn override {
    if (!range_within(offset, iov.size(), options_.size)) return Error::from_errno(ENOSPC);
    take_time();
    return {};
  }

  Result<void> pwrite_zeroes(uint64_t offset, uint64_t bytes, const ZeroOptions&) coroutine_fn override {
    if (!range_within(offset, bytes, options_.size)) return Error::from_errno(ENOSPC);
    take_time();
    return {};
  }

  Result<void> flush() coroutine_fn override {
    take_time();
    return {};
  }

  Result<BlockStatus> block_status(uint64_t offset, uint64_t bytes, bool) coroutine_fn override {
    return BlockStatus{.bytes = bytes,
                       .allocated = options_.read_zeroes,
                       .zero = options_.read_zeroes,
                       .host_offset = offset,
                       .file = &node_};
  }

  Result<std::optional<uint64_t>> allocated_file_size() coroutine_fn override { return std::optional<uint64_t>(0); }

 private:
  void take_time() coroutine_fn {
    if (options_.latency_ns > 0) {
      co_sleep_ns(ClockType::kMonotonic, options_.latency_ns);
    } else if (yields_) {
      AioContext::current().co_schedule(Coroutine::self());
      Coroutine::yield();
    }
  }

  const DriverType& type_;
  const BlockNode& node_;
  const NullOptions options_;
  const bool yields_;
};

class NullType final : public DriverType {
 public:
  NullType(std::string_view name, bool yields) : name_(name), yields_(yields) {}

  std::string_view name() const override { return name_; }
  DriverKind kind() const override { return DriverKind::kProtocol; }
  bool has_option_names() const override { return true; }

  Result<void> parse_name(const std::string& name, Options&) const override {
    const std::string only = fmt::format("{}://", name_);
    if (name == only) return {};
    return Error(EINVAL, fmt::format("The only allowed filename for this driver is '{}'", only));
  }

  Result<std::unique_ptr<BlockDriver>> open(OpenArgs args) const coroutine_fn override {
    if (args.options->empty()) args.node->set_filename(fmt::format("{}://", name_));
    NullOptions options;
    options.size = COIMG_TRY(args.options->take_size("size")).value_or(kDefaultSize);
    options.latency_ns = COIMG_TRY(args.options->take_number("latency-ns")).value_or(0);
    options.read_zeroes = COIMG_TRY(args.options->take_bool("read-zeroes")).value_or(false);
    if (options.latency_ns < 0) return Error(EINVAL, "latency-ns is invalid");
    if (options.size > kMaxFileOffset - kMiB) return Error(EFBIG, "the size is too large");
    return std::make_unique<NullDisk>(*this, *args.node, options, yields_);
  }

 private:
  const std::string_view name_;
  const bool yields_;
};

}  // namespace

std::unique_ptr<DriverType> make_null_co_driver_type() { return std::make_unique<NullType>("null-co", false); }
std::unique_ptr<DriverType> make_null_aio_driver_type() { return std::make_unique<NullType>("null-aio", true); }

}  // namespace coimg
