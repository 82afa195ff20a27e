// commit: moves what an overlay holds into its backing file, or into another one of its chain.
#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "block/copy.h"
#include "block/open.h"
#include "cmd/command.h"
#include "cmd/common.h"
#include "cmd/progress.h"
#include "cmd/sizes.h"
#include "cmd/stop_signals.h"
#include "cmd/target.h"

namespace coimg {

namespace {

constexpr double kProgressStep = 1;

/// Words for an error of the copy. Which file and where stays.
Error job_failed(const Error& error) {
  return Error(error.errnum(), fmt::format("Block job failed: {}", std::strerror(error.errnum()))).where(error);
}

class CommitCommand final : public Command {
 public:
  [[nodiscard]] std::string_view name() const override { return "commit"; }
  [[nodiscard]] std::string_view summary() const override { return "Move what an overlay holds into its backing file"; }
  [[nodiscard]] std::string_view syntax() const override {
    return "[--object objectdef] [--image-opts] [-q] [-f fmt] [-t cache] [-b base] [-r rate_limit] [-d] [-p] filename";
  }
  void declare(OptionDeclarer& options) override;
  Result<void> prepare(const CommandContext& context, std::vector<std::string> operands) override;
  Result<int> run(CommandContext& context) coroutine_fn override;

 private:
  Result<std::unique_ptr<BlockNode>> open(const CommandContext& context, unsigned base_depth) const coroutine_fn;
  Result<unsigned> find_base(const BlockNode& top) const;
  Result<int> find_and_commit(CommandContext& context, std::unique_ptr<BlockNode> top, Progress& progress) coroutine_fn;
  Result<int> commit(CommandContext& context, BlockNode& top, BlockNode* base, Progress& progress) coroutine_fn;
  Result<void> copy(BlockNode& top, BlockNode& base, Progress& progress, const StopSignals& signals) coroutine_fn;

  ImageOptions image_;
  std::optional<std::string> base_;
  std::string cache_name_ = "writeback";
  CacheMode cache_;
  uint64_t rate_limit_ = 0;
  bool keep_ = false, show_progress_ = false, quiet_ = false;
  std::string operand_;
};

void CommitCommand::declare(OptionDeclarer& options) {
  image_.declare_format(options, "-f");
  image_.declare_image_opts(options);
  image_.declare_object(options);
  options.text("-b", "BASE", base_, "The image of the chain that takes it, as the overlay would name it; implies -d");
  options.flag("-d", keep_, "Do not empty the overlay afterwards");
  options.parsed(
      "-r", "BYTES",
      [this](const std::string& text) -> Result<void> {
        rate_limit_ = COIMG_TRY(parse_operand_size(text, "rate limit"));
        return {};
      },
      "Write no more than this a second");
  options.text("-t", "CACHE", cache_name_, "Cache mode (default: writeback)");
  options.flag("-p", show_progress_, "Show progress");
  options.flag("-q", quiet_, "Print nothing but errors");
  options.describe_operands("FILE",
                            "The overlay is emptied, so that it shows its backing file, unless -b or -d is given.");
}

Result<void> CommitCommand::prepare(const CommandContext& context, std::vector<std::string> operands) {
  operand_ = COIMG_TRY(take_one_operand(context, std::move(operands)));
  cache_ = COIMG_TRY(parse_cache_mode(cache_name_));
  return {};
}

Result<int> CommitCommand::run(CommandContext& context) {
  // A base that has a name must be found before it can be opened for writing.
  auto opened = open(context, base_.has_value() ? 0 : 1);
  if (!opened.ok() && !base_.has_value()) {
    // What keeps the chain from being read is told rather than what keeps the base from being written.
    const auto read_only_base = COIMG_TRY(open(context, 0));
    return close_after<int>(*read_only_base, std::move(opened).error());
  }
  auto top = COIMG_TRY(std::move(opened));
  Result<int> exit_code;
  {
    Progress progress(context.console, show_progress_ && !quiet_, kProgressStep);
    exit_code = find_and_commit(context, std::move(top), progress);
  }
  if (exit_code.ok() && *exit_code == 0 && !quiet_) context.console.out("Image committed.\n");
  return exit_code;
}

/// The image with its chain; the layer `base_depth` below the top is writable too.
Result<std::unique_ptr<BlockNode>> CommitCommand::open(const CommandContext& context, unsigned base_depth) const {
  OpenFlags flags{.writable = true, .writable_below = base_depth, .discard_unmap = true};
  cache_.apply_to(flags);
  return open_operand(context, operand_, image_.format, image_.image_opts, flags);
}

Result<int> CommitCommand::find_and_commit(CommandContext& context, std::unique_ptr<BlockNode> top,
                                           Progress& progress) {
  unsigned depth = 1;
  if (base_.has_value()) {
    depth = COIMG_TRY(close_after(*top, find_base(*top)));
    top = COIMG_TRY(open(context, depth));
  }
  BlockNode* base = top.get();
  for (unsigned below = 0; below < depth && base != nullptr; ++below) base = base->backing();
  return close_after(*top, commit(context, *top, base, progress));
}

/// How far below the top the image is that -b names, in the way an overlay names its backing file.
Result<unsigned> CommitCommand::find_base(const BlockNode& top) const {
  unsigned depth = 1;
  for (const BlockNode* overlay = &top; overlay->backing() != nullptr; overlay = overlay->backing(), ++depth) {
    const auto identity = find_host_file(resolve_backing_name(overlay->filename(), *base_));
    if (identity.has_value() && overlay->backing()->file_identity() == identity) return depth;
  }
  return Error(EINVAL, fmt::format("Did not find '{}' in the backing chain of '{}'", *base_, operand_));
}

/// Interrupted it leaves the overlay as it was; what has reached the base by then is hidden by it.
Result<int> CommitCommand::commit(CommandContext& context, BlockNode& top, BlockNode* base, Progress& progress) {
  if (base == nullptr) {
    const ImageInfo info = COIMG_TRY(top.co_info());
    const bool names_one = !info.backing_filename.empty();
    return Error(EINVAL, names_one ? "Image has all its clusters itself and does not use its backing file"
                                   : "Image does not have a backing file");
  }
  const StopSignals signals(context, [] {});
  const Result<void> copied = copy(top, *base, progress, signals);
  if (signals.received() != 0) return context.stopped_by(signals.received());
  if (!copied.ok()) return job_failed(copied.error());
  progress.finish();
  // Only now that the base has it for good.
  if (!keep_ && !base_.has_value()) COIMG_TRY(top.co_make_empty().with_context("Could not empty " + operand_));
  return 0;
}

Result<void> CommitCommand::copy(BlockNode& top, BlockNode& base, Progress& progress, const StopSignals& signals) {
  if (base.length() < top.length()) COIMG_TRY(base.co_truncate(top.length()));
  const auto stopped = [&signals] { return signals.received() != 0; };
  base.set_rate_limit(rate_limit_, stopped);
  const CopyOptions options{.sparse_bytes = 0,
                            .target_has_backing = true,
                            .above = &base,
                            .on_progress = [&progress](uint64_t done, uint64_t total) { progress.update(done, total); },
                            .should_stop = stopped};
  COIMG_TRY(co_copy({&top}, base, options));
  return base.co_flush();
}

}  // namespace

std::unique_ptr<Command> make_commit_command() { return std::make_unique<CommitCommand>(); }

}  // namespace coimg
