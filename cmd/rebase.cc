// rebase: gives an image another backing file.
#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "block/open.h"
#include "block/rebase_copy.h"
#include "cmd/command.h"
#include "cmd/common.h"
#include "cmd/progress.h"
#include "cmd/stop_signals.h"

namespace coimg {

namespace {

constexpr double kProgressStep = 1;

/// Whether the files of an image are in a chain that is to be its backing file.
bool has_part_of(const BlockNode& overlay, const BlockNode* chain) {
  for (; chain != nullptr; chain = chain->backing()) {
    for (const BlockNode* other = chain; other != nullptr; other = other->data_file()) {
      for (const BlockNode* own = &overlay; own != nullptr; own = own->data_file()) {
        if (own->file_identity().has_value() && own->file_identity() == other->file_identity()) return true;
      }
    }
  }
  return false;
}

class RebaseCommand final : public Command {
 public:
  [[nodiscard]] std::string_view name() const override { return "rebase"; }
  [[nodiscard]] std::string_view summary() const override { return "Give an image another backing file"; }
  [[nodiscard]] std::string_view syntax() const override {
    return "[--object objectdef] [--image-opts] [-U] [-q] [-f fmt] [-t cache] [-T src_cache] [-p] [-u] -b backing_file "
           "[-F backing_fmt] filename";
  }
  void declare(OptionDeclarer& options) override;
  Result<void> prepare(const CommandContext& context, std::vector<std::string> operands) override;
  Result<int> run(CommandContext& context) coroutine_fn override;

 private:
  Result<int> open_and_rebase(CommandContext& context, Progress& progress) coroutine_fn;
  Result<int> rebase(CommandContext& context, BlockNode& overlay, Progress& progress) coroutine_fn;
  Result<std::unique_ptr<BlockNode>> open_new_backing(const CommandContext& context, const BlockNode& overlay)
      coroutine_fn;
  Result<int> copy(CommandContext& context, BlockNode& overlay, BlockNode* new_backing, Progress& progress)
      coroutine_fn;
  [[nodiscard]] Result<void> check_change(const BlockNode& overlay) const;
  [[nodiscard]] Result<void> explain(Result<void> changed) const;
  Result<void> change(BlockNode& overlay) const coroutine_fn;
  /// As it is to be stored.
  [[nodiscard]] std::string new_format() const {
    return backing_.value_or("").empty() ? "" : backing_format_.value_or("");
  }
  [[nodiscard]] Error cannot_change(int errnum, std::string_view reason) const;

  ImageOptions image_;
  std::optional<std::string> backing_, backing_format_;
  std::string cache_name_ = "writeback", source_cache_name_ = "writeback";
  CacheMode cache_, source_cache_;
  bool unsafe_ = false, show_progress_ = false, quiet_ = false;
  std::string operand_;
};

void RebaseCommand::declare(OptionDeclarer& options) {
  image_.declare_format(options, "-f");
  image_.declare_image_opts(options);
  image_.declare_force_share(options);
  image_.declare_object(options);
  options.text("-b", "BACKING", backing_, "The new backing file; '' for none");
  options.text("-F", "FMT", backing_format_, "Format of the new backing file");
  options.flag("-u", unsafe_, "Unsafe: only store the new name; the contents have to be the same");
  options.text("-t", "CACHE", cache_name_, "Cache mode of the image (default: writeback)");
  options.text("-T", "CACHE", source_cache_name_, "Cache mode of the backing files (default: writeback)");
  options.flag("-p", show_progress_, "Show progress");
  options.flag("-q", quiet_, "Print nothing but errors");
  options.describe_operands("FILE", "What a guest sees stays the same, unless -u is given.");
}

Result<void> RebaseCommand::prepare(const CommandContext& context, std::vector<std::string> operands) {
  if (operands.size() != 1) return context.program.usage_error("Expecting one image file name");
  if (!unsafe_ && !backing_.has_value()) {
    return context.program.usage_error("Must specify backing file (-b) or use unsafe mode (-u)");
  }
  operand_ = std::move(operands.front());
  return {};
}

Result<int> RebaseCommand::run(CommandContext& context) {
  Progress progress(context.console, show_progress_ && !quiet_, kProgressStep);
  return open_and_rebase(context, progress);
}

Result<int> RebaseCommand::open_and_rebase(CommandContext& context, Progress& progress) {
  cache_ = COIMG_TRY(parse_cache_mode(cache_name_));
  source_cache_ = COIMG_TRY(parse_source_cache_mode(source_cache_name_));
  OpenFlags flags{.writable = true, .no_backing = unsafe_};
  cache_.apply_to(flags);
  const auto overlay = COIMG_TRY(open_operand(context, operand_, image_.format, image_.image_opts, flags));
  return close_after(*overlay, rebase(context, *overlay, progress));
}

Result<int> RebaseCommand::rebase(CommandContext& context, BlockNode& overlay, Progress& progress) {
  if (backing_format_.has_value() && context.registry.find(*backing_format_) == nullptr) {
    return Error(EINVAL, fmt::format("Invalid format name: '{}'", *backing_format_));
  }
  if (!unsafe_) {
    std::unique_ptr<BlockNode> new_backing;
    if (!backing_->empty()) new_backing = COIMG_TRY(open_new_backing(context, overlay));
    const bool is_loop = has_part_of(overlay, new_backing.get());
    Result<int> copied = is_loop ? Result<int>(cannot_change(EINVAL, "it has the image itself below it"))
                                 : copy(context, overlay, new_backing.get(), progress);
    if (new_backing != nullptr) copied = close_after(*new_backing, std::move(copied));
    if (!copied.ok() || *copied != 0) return copied;
  }
  COIMG_TRY(check_change(overlay));
  COIMG_TRY(change(overlay));
  progress.finish();
  return 0;
}

Result<std::unique_ptr<BlockNode>> RebaseCommand::open_new_backing(const CommandContext& context,
                                                                   const BlockNode& overlay) {
  OpenFlags flags{.force_share = image_.force_share};
  source_cache_.apply_to(flags);
  const OpenRequest request{.name = {.text = resolve_backing_name(overlay.filename(), *backing_)},
                            .format = backing_format_.value_or(""),
                            .flags = flags};
  return open_image(context.registry, request)
      .with_context(fmt::format("Could not open new backing file '{}'", *backing_));
}

/// Interrupted it leaves an image that shows the same as before on the old backing file.
Result<int> RebaseCommand::copy(CommandContext& context, BlockNode& overlay, BlockNode* new_backing,
                                Progress& progress) {
  COIMG_TRY(check_change(overlay));  // before a long copy, which would be for nothing
  const StopSignals signals(context, [] {});
  const RebaseCopyOptions options{
      .on_progress = [&progress](uint64_t done, uint64_t total) { progress.update(done, total); },
      .should_stop = [&signals] { return signals.received() != 0; }};
  Result<void> copied = co_copy_difference(overlay, new_backing, options);
  if (signals.received() != 0) return context.stopped_by(signals.received());
  COIMG_TRY(std::move(copied));
  return 0;
}

/// Whether the image can name the new backing file.
Result<void> RebaseCommand::check_change(const BlockNode& overlay) const {
  const bool names_one = backing_.has_value() && !backing_->empty();
  if (names_one && !backing_format_.has_value()) return cannot_change(EINVAL, "backing format must be specified");
  if (!overlay.type().supports_backing()) return cannot_change(ENOTSUP, std::strerror(ENOTSUP));
  return explain(overlay.driver().check_backing_change(backing_.value_or(""), new_format()));
}

/// The driver makes durable what was copied before the new name is.
Result<void> RebaseCommand::change(BlockNode& overlay) const {
  return explain(overlay.co_change_backing_file(backing_.value_or(""), new_format()));
}

Result<void> RebaseCommand::explain(Result<void> changed) const {
  if (changed.ok()) return {};
  const int errnum = changed.error().errnum();
  return cannot_change(errnum, errnum == ENOSPC ? "No space left in the file header" : std::strerror(errnum));
}

Error RebaseCommand::cannot_change(int errnum, std::string_view reason) const {
  return {errnum, fmt::format("Could not change the backing file to '{}': {}", backing_.value_or("(null)"), reason)};
}

}  // namespace

std::unique_ptr<Command> make_rebase_command() { return std::make_unique<RebaseCommand>(); }

}  // namespace coimg
