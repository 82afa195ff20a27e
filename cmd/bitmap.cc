// bitmap: adds, removes and changes persistent dirty bitmaps.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "cmd/command.h"
#include "cmd/common.h"
#include "cmd/sizes.h"

namespace coimg {

namespace {

class BitmapCommand final : public Command {
 public:
  [[nodiscard]] std::string_view name() const override { return "bitmap"; }
  [[nodiscard]] std::string_view summary() const override { return "Manage the dirty bitmaps of an image"; }
  [[nodiscard]] std::string_view syntax() const override {
    return "(--merge SOURCE | --add | --remove | --clear | --enable | --disable)... [-b source_file [-F source_fmt]] "
           "[-g granularity] [--object objectdef] [--image-opts | -f fmt] filename bitmap";
  }
  void declare(OptionDeclarer& options) override;
  Result<void> prepare(const CommandContext& context, std::vector<std::string> operands) override;
  Result<int> run(CommandContext& context) coroutine_fn override;

 private:
  enum class Kind { kAdd, kRemove, kClear, kEnable, kDisable, kMerge };
  struct Action {
    Kind kind;
    const char* name;         ///< in messages
    std::string source = {};  ///< of kMerge
  };
  void declare_action(OptionDeclarer& options, const char* option, Action action, const char* help);
  [[nodiscard]] bool has(Kind kind) const;
  Result<void> act_all(BlockNode& image, BlockNode& source) const coroutine_fn;
  Result<void> act(const Action& action, BlockNode& image, BlockNode& source) const coroutine_fn;

  ImageOptions image_;
  std::vector<Action> actions_;  ///< in the order of the command line
  std::optional<std::string> source_file_, source_format_;
  uint64_t granularity_ = 0;
  std::string operand_, bitmap_;
};

void BitmapCommand::declare_action(OptionDeclarer& options, const char* option, Action action, const char* help) {
  options.action(option, [this, action] { actions_.push_back(action); }, help);
}

void BitmapCommand::declare(OptionDeclarer& options) {
  image_.declare_format(options, "-f");
  image_.declare_image_opts(options);
  image_.declare_object(options);
  declare_action(options, "--add", {Kind::kAdd, "add"}, "Add the bitmap; it records changes from now on");
  declare_action(options, "--remove", {Kind::kRemove, "remove"}, "Remove the bitmap");
  declare_action(options, "--clear", {Kind::kClear, "clear"}, "Make the bitmap say that nothing has changed");
  declare_action(options, "--enable", {Kind::kEnable, "enable"}, "Let the bitmap record changes");
  declare_action(options, "--disable", {Kind::kDisable, "disable"}, "Let the bitmap stay as it is");
  options.parsed(
      "--merge", "SOURCE",
      [this](const std::string& source) -> Result<void> {
        actions_.push_back({Kind::kMerge, "merge", source});
        return {};
      },
      "Add what another bitmap has recorded");
  options.text("-b,--source-file", "FILE", source_file_, "Take the sources of --merge from this image");
  options.text("-F,--source-format", "FMT", source_format_, "Format of that image");
  options.parsed(
      "-g,--granularity", "BYTES",
      [this](const std::string& text) -> Result<void> {
        granularity_ = COIMG_TRY(parse_operand_size(text, "granularity"));
        return {};
      },
      "Bytes that one bit of an added bitmap stands for");
  options.describe_operands("FILE BITMAP", "Actions are done in the order in which they are given.");
}

bool BitmapCommand::has(Kind kind) const {
  return std::ranges::any_of(actions_, [kind](const Action& action) { return action.kind == kind; });
}

Result<void> BitmapCommand::prepare(const CommandContext&, std::vector<std::string> operands) {
  if (actions_.empty()) {
    return Error(EINVAL, "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge");
  }
  if (granularity_ != 0 && !has(Kind::kAdd)) return Error(EINVAL, "granularity only supported with --add");
  if (source_format_.has_value() && !source_file_.has_value()) return Error(EINVAL, "-F only supported with -b");
  if (source_file_.has_value() && !has(Kind::kMerge)) {
    return Error(EINVAL, "Merge bitmap source file only supported with --merge");
  }
  if (operands.size() != 2) return Error(EINVAL, "Expecting filename and bitmap name");
  operand_ = std::move(operands[0]);
  bitmap_ = std::move(operands[1]);
  return {};
}

Result<int> BitmapCommand::run(CommandContext& context) {
  const OpenFlags flags{.writable = true, .no_backing = true};
  const auto image = COIMG_TRY(open_operand(context, operand_, image_.format, image_.image_opts, flags));
  Result<void> done;
  if (source_file_.has_value()) {
    auto source = open_operand(context, *source_file_, source_format_, false, {.no_backing = true});
    done = source.ok() ? close_after(**source, act_all(*image, **source)) : std::move(source).error();
  } else {
    done = act_all(*image, *image);
  }
  // What has been done before an error is kept.
  COIMG_TRY(close_after(*image, std::move(done)));
  return 0;
}

Result<void> BitmapCommand::act_all(BlockNode& image, BlockNode& source) const {
  for (const Action& action : actions_) {
    COIMG_TRY(
        act(action, image, source).with_context(fmt::format("Operation {} on bitmap {} failed", action.name, bitmap_)));
  }
  return {};
}

Result<void> BitmapCommand::act(const Action& action, BlockNode& image, BlockNode& source) const {
  switch (action.kind) {
    case Kind::kAdd:
      return image.co_add_bitmap({.name = bitmap_, .granularity = granularity_});
    case Kind::kRemove:
      return image.co_remove_bitmap(bitmap_);
    case Kind::kClear:
      return image.co_clear_bitmap(bitmap_);
    case Kind::kEnable:
      return image.co_set_bitmap_recording(bitmap_, true);
    case Kind::kDisable:
      return image.co_set_bitmap_recording(bitmap_, false);
    case Kind::kMerge:
      return image.co_merge_bitmap(bitmap_, source, action.source);
  }
  __builtin_unreachable();
}

}  // namespace

std::unique_ptr<Command> make_bitmap_command() { return std::make_unique<BitmapCommand>(); }

}  // namespace coimg
