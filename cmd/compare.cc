// compare: do two images show a guest the same disk.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "cmd/command.h"
#include "cmd/common.h"
#include "cmd/comparison.h"
#include "cmd/progress.h"
#include "cmd/stop_signals.h"

namespace coimg {

namespace {

/// What callers tell apart. Mistakes in the command line end with 1 as well.
enum ExitCode { kSame = 0, kDifferent = 1, kNotOpened = 2, kStatusFailed = 3, kReadFailed = 4 };

constexpr double kProgressStep = 2;

class CompareCommand final : public Command {
 public:
  [[nodiscard]] std::string_view name() const override { return "compare"; }
  [[nodiscard]] std::string_view summary() const override { return "Compare the contents of two images"; }
  [[nodiscard]] std::string_view syntax() const override {
    return "[--object objectdef] [--image-opts] [-f fmt] [-F fmt] [-T src_cache] [-p] [-q] [-s] [-U] filename1 "
           "filename2";
  }
  [[nodiscard]] int option_error_exit_code() const override { return kNotOpened; }
  [[nodiscard]] CommandWork work() const override { return CommandWork::kRead; }
  void declare(OptionDeclarer& options) override;
  Result<void> prepare(const CommandContext& context, std::vector<std::string> operands) override;
  Result<int> run(CommandContext& context) coroutine_fn override;

 private:
  int open_and_compare(CommandContext& context, Progress& progress) coroutine_fn;
  int compare(CommandContext& context, BlockNode& first, BlockNode& second, Progress& progress) coroutine_fn;
  int report(CommandContext& context, const ComparisonFinding& finding, unsigned first_operand) const;
  void say(CommandContext& context, const std::string& line) const;

  ImageOptions image_;
  std::optional<std::string> second_format_;
  std::string cache_name_ = "writeback";
  bool show_progress_ = false, quiet_ = false, strict_ = false;
  std::string operands_[2];
};

void CompareCommand::declare(OptionDeclarer& options) {
  image_.declare_format(options, "-f");
  image_.declare_image_opts(options);
  image_.declare_force_share(options);
  image_.declare_object(options);
  options.text("-F", "FMT", second_format_, "Format of the second image");
  options.text("-T", "CACHE", cache_name_, "Cache mode of both (default: writeback)");
  options.flag("-p", show_progress_, "Show progress");
  options.flag("-q", quiet_, "Print nothing but errors");
  options.flag("-s", strict_, "Strict: sizes and allocation have to be the same too");
  options.describe_operands("FILE1 FILE2",
                            "Exit codes: 0 identical, 1 different, 2 not opened, 3 and 4 failed to read.");
}

Result<void> CompareCommand::prepare(const CommandContext& context, std::vector<std::string> operands) {
  if (operands.size() != 2) return context.program.usage_error("Expecting two image file names");
  std::move(operands.begin(), operands.end(), operands_);
  return {};
}

Result<int> CompareCommand::run(CommandContext& context) {
  Progress progress(context.console, show_progress_ && !quiet_, kProgressStep);
  return open_and_compare(context, progress);
}

int CompareCommand::open_and_compare(CommandContext& context, Progress& progress) {
  const Result<CacheMode> cache = parse_source_cache_mode(cache_name_);
  if (!cache.ok()) return context.fail(kNotOpened, cache.error());
  OpenFlags flags{.force_share = image_.force_share};
  cache->apply_to(flags);

  auto first = open_operand(context, operands_[0], image_.format, image_.image_opts, flags);
  if (!first.ok()) return context.fail(kNotOpened, first.error());
  auto second = open_operand(context, operands_[1], second_format_, image_.image_opts, flags);
  int exit_code =
      second.ok() ? compare(context, **first, **second, progress) : context.fail(kNotOpened, second.error());
  for (auto* node : {&first, &second}) {
    if (!node->ok()) continue;
    const Result<void> closed = (**node)->co_close();
    if (!closed.ok() && exit_code == kSame) exit_code = context.fail(kReadFailed, closed.error());
  }
  return exit_code;
}

int CompareCommand::compare(CommandContext& context, BlockNode& first, BlockNode& second, Progress& progress) {
  const uint64_t common = std::min(first.length(), second.length());
  const uint64_t total = std::max(first.length(), second.length());
  if (strict_ && common != total) {
    say(context, "Strict mode: Image size mismatch!");
    return kDifferent;
  }
  const StopSignals signals(context, [] {});
  const Comparison::Options options{.strict = strict_,
                                    .on_progress =
                                        [&progress, total](uint64_t offset) {
                                          if (offset < total) progress.update(offset, total);
                                        },
                                    .should_stop = [&signals] { return signals.received() != 0; }};
  const ComparisonFinding finding = Comparison(first, &second, options).run(0, common);
  if (signals.received() != 0) return context.stopped_by(signals.received());
  if (finding.kind != ComparisonFinding::Kind::kNone) return report(context, finding, 0);

  if (common != total) {
    say(context, "Warning: Image size mismatch!");
    const bool second_is_longer = second.length() == total;
    const ComparisonFinding in_tail =
        Comparison(second_is_longer ? second : first, nullptr, options).run(common, total);
    if (signals.received() != 0) return context.stopped_by(signals.received());
    if (in_tail.kind != ComparisonFinding::Kind::kNone) return report(context, in_tail, second_is_longer ? 1 : 0);
  }
  if (total != 0 || context.console.format().json_progress) progress.finish();
  say(context, "Images are identical.");
  return kSame;
}

/// Says what was found. `first_operand` is the operand that the comparison had as its first image.
int CompareCommand::report(CommandContext& context, const ComparisonFinding& finding, unsigned first_operand) const {
  using Kind = ComparisonFinding::Kind;
  const std::string& name = operands_[first_operand + finding.image];
  switch (finding.kind) {
    case Kind::kNone:
      return kSame;
    case Kind::kContent:
      say(context, fmt::format("Content mismatch at offset {}!", finding.offset));
      return kDifferent;
    case Kind::kStatus:
      say(context, fmt::format("Strict mode: Offset {} block status mismatch!", finding.offset));
      return kDifferent;
    case Kind::kStatusFailed:
      return context.fail(kStatusFailed, finding.error->with_context("Sector allocation test failed for " + name));
    case Kind::kReadFailed:
      break;
  }
  return context.fail(kReadFailed, finding.error->with_context(
                                       fmt::format("Error while reading offset {} of {}", finding.offset, name)));
}

void CompareCommand::say(CommandContext& context, const std::string& line) const {
  if (!quiet_) context.console.out(line + "\n");
}

}  // namespace

std::unique_ptr<Command> make_compare_command() { return std::make_unique<CompareCommand>(); }

}  // namespace coimg
