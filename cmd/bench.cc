// bench: how fast an image takes many equal requests.
#include <fmt/format.h>

#include <cerrno>
#include <chrono>

#include "cmd/bench_run.h"
#include "cmd/command.h"
#include "cmd/common.h"
#include "cmd/sizes.h"

namespace coimg {

namespace {

constexpr uint64_t kMaxRequestBytes = INT32_MAX;

/// A plain number from 0 to `most`. Errors: "Invalid WHAT specified".
Result<uint64_t> parse_bench_count(const std::string& text, std::string_view what, int64_t most = INT32_MAX) {
  const auto number = parse_count(text);
  if (number.has_value() && *number >= 0 && *number <= most) return static_cast<uint64_t>(*number);
  return Error(EINVAL, fmt::format("Invalid {} specified", what));
}

class BenchCommand final : public Command {
 public:
  [[nodiscard]] std::string_view name() const override { return "bench"; }
  [[nodiscard]] std::string_view summary() const override { return "Time many equal requests to an image"; }
  [[nodiscard]] std::string_view syntax() const override {
    return "[-c count] [-d depth] [-f fmt] [--flush-interval=flush_interval] [-i aio] [-n] [--no-drain] [-o offset] "
           "[--pattern=pattern] [-q] [-s buffer_size] [-S step_size] [-t cache] [-w] [-U] filename";
  }
  void declare(OptionDeclarer& options) override;
  Result<void> prepare(const CommandContext& context, std::vector<std::string> operands) override;
  Result<int> run(CommandContext& context) coroutine_fn override;

 private:
  void declare_counts(OptionDeclarer& options);
  void declare_sizes(OptionDeclarer& options);
  void declare_mode(OptionDeclarer& options);
  Result<int> time_requests(CommandContext& context, BlockNode& node) coroutine_fn;

  ImageOptions image_;
  BenchPlan plan_;
  uint64_t step_bytes_ = 0;  ///< 0: the same as a request
  CacheMode cache_;
  bool native_aio_ = false, no_drain_ = false, quiet_ = false;
  std::string operand_;
};

void BenchCommand::declare(OptionDeclarer& options) {
  image_.declare_format(options, "-f");
  image_.declare_image_opts(options);
  image_.declare_force_share(options);
  if (!options.program().as_qemu_img)
    image_.declare_object(options);  // which qemu-img has in all commands but this one
  declare_counts(options);
  declare_sizes(options);
  declare_mode(options);
  options.describe_operands("FILE", "Writes (-w) change what the image holds.");
}

void BenchCommand::declare_counts(OptionDeclarer& options) {
  const auto number = [&options](const char* names, uint64_t& target, const char* what, const char* help) {
    options.parsed(
        names, "N",
        [&target, what](const std::string& text) -> Result<void> {
          target = COIMG_TRY(parse_bench_count(text, what));
          return {};
        },
        help);
  };
  number("-c", plan_.count, "request count", "Requests in all (default: 75000)");
  number("-d", plan_.depth, "queue depth", "Requests in flight (default: 64)");
  number("--flush-interval", plan_.flush_interval, "flush interval", "With -w: flush every N requests");
  options.flag("--no-drain", no_drain_, "Do not wait for the requests in flight before a flush");
  options.parsed(
      "--pattern", "BYTE",
      [this](const std::string& text) -> Result<void> {
        plan_.pattern = static_cast<std::byte>(COIMG_TRY(parse_bench_count(text, "pattern byte", UINT8_MAX)));
        return {};
      },
      "With -w: the byte to write (default: 0)");
}

void BenchCommand::declare_sizes(OptionDeclarer& options) {
  const auto size = [&options](const char* names, uint64_t& target, const char* what, uint64_t most, const char* help) {
    options.parsed(
        names, "BYTES",
        [&target, what, most](const std::string& text) -> Result<void> {
          target = COIMG_TRY(parse_operand_size(text, what, 0, most));
          return {};
        },
        help);
  };
  size("-o", plan_.offset, "offset", kMaxOperandSize, "Where the first request begins (default: 0)");
  size("-s", plan_.bytes, "buffer size", kMaxRequestBytes, "Size of a request (default: 4k)");
  size("-S", step_bytes_, "step_size", kMaxRequestBytes, "From one request to the next (default: the size of one)");
}

void BenchCommand::declare_mode(OptionDeclarer& options) {
  options.flag("-w", plan_.write, "Write; without it requests read");
  options.parsed(
      "-t", "CACHE",
      [this](const std::string& name) -> Result<void> {
        const auto mode = find_cache_mode(name);
        if (!mode.has_value()) return Error(EINVAL, "Invalid cache mode");
        cache_ = *mode;
        return {};
      },
      "Cache mode (default: writeback)");
  options.parsed(
      "-i", "AIO",
      [this](const std::string& name) -> Result<void> {
        if (name != "threads" && name != "native" && name != "io_uring") {
          return Error(EINVAL, fmt::format("Invalid aio option: {}", name));
        }
        native_aio_ = name == "native";
        return {};
      },
      "threads, native or io_uring");
  options.flag("-n", native_aio_, "The same as -i native");
  options.flag("-q", quiet_, "Accepted");
}

Result<void> BenchCommand::prepare(const CommandContext& context, std::vector<std::string> operands) {
  operand_ = COIMG_TRY(take_one_operand(context, std::move(operands)));
  if (!plan_.write && plan_.flush_interval != 0) {
    return Error(EINVAL, "--flush-interval is only available in write tests");
  }
  if (plan_.flush_interval != 0 && plan_.flush_interval < plan_.depth) {
    return Error(EINVAL, "Flush interval can't be smaller than depth");
  }
  if (plan_.count != 0 && plan_.depth == 0) return Error(EINVAL, "Invalid queue depth specified");
  if (std::min(plan_.count, plan_.depth) > kMaxBenchDepth) {
    return Error(EINVAL, fmt::format("Not more than {} requests can be in flight", kMaxBenchDepth));
  }
  plan_.step_bytes = step_bytes_ != 0 ? step_bytes_ : plan_.bytes;
  plan_.drain_for_flush = !no_drain_;
  return {};
}

Result<int> BenchCommand::run(CommandContext& context) {
  OpenFlags flags{.writable = plan_.write, .force_share = image_.force_share};
  cache_.apply_to(flags);
  const auto node = COIMG_TRY(open_operand(context, operand_, image_.format, image_.image_opts, flags));
  if (native_aio_ && !cache_.direct) {
    const Error refused(EINVAL, fmt::format("Could not open '{}': aio=native was specified, but it requires "
                                            "cache.direct=on, which was not specified.",
                                            operand_));
    return close_after<int>(*node, refused);
  }
  return close_after(*node, time_requests(context, *node));
}

Result<int> BenchCommand::time_requests(CommandContext& context, BlockNode& node) {
  context.console.out(fmt::format(
      "Sending {} {} requests, {} bytes each, {} in parallel (starting at offset {}, step size {})\n", plan_.count,
      plan_.write ? "write" : "read", plan_.bytes, plan_.depth, plan_.offset, plan_.step_bytes));
  if (plan_.flush_interval != 0) {
    context.console.out(fmt::format("Sending flush every {} requests\n", plan_.flush_interval));
  }
  const auto start = std::chrono::steady_clock::now();
  COIMG_TRY(run_bench(node, plan_));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  context.console.out(fmt::format("Run completed in {:.3f} seconds.\n", took.count()));
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_bench_command() { return std::make_unique<BenchCommand>(); }

}  // namespace coimg
