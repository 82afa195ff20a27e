// resize: changes the size of the disk in an image.
#include <fmt/format.h>

#include <cerrno>
#include <limits>

#include "block/options.h"
#include "block/util/math.h"
#include "cmd/command.h"
#include "cmd/common.h"
#include "cmd/sizes.h"

namespace coimg {

namespace {

constexpr const char* kShrinkWarning =
    "Shrinking an image will delete all data beyond the shrunken image's end. Before performing such an operation, "
    "make sure there is no important data there.";

/// The size operand: a new size, or how much is to be added or taken away.
struct SizeChange {
  enum class Kind { kAbsolute, kGrow, kShrink };
  Kind kind = Kind::kAbsolute;
  uint64_t bytes = 0;

  /// Nothing when no image can have the size that comes out.
  [[nodiscard]] std::optional<uint64_t> apply_to(uint64_t length) const {
    std::optional<uint64_t> result = bytes;
    if (kind == Kind::kGrow) result = checked_add(length, bytes);
    if (kind == Kind::kShrink) result = bytes < length ? std::optional(length - bytes) : std::nullopt;
    if (!result.has_value() || *result == 0 || *result > kMaxOperandSize) return std::nullopt;
    return result;
  }
};

class ResizeCommand final : public Command {
 public:
  [[nodiscard]] std::string_view name() const override { return "resize"; }
  [[nodiscard]] std::string_view summary() const override { return "Change the size of an image"; }
  [[nodiscard]] std::string_view syntax() const override {
    return "[--object objectdef] [--image-opts] [-f fmt] [--preallocation=prealloc] [-q] [--shrink] filename [+ | "
           "-]size";
  }
  [[nodiscard]] bool last_word_is_operand() const override { return true; }
  void declare(OptionDeclarer& options) override;
  Result<void> prepare(const CommandContext& context, std::vector<std::string> operands) override;
  Result<int> run(CommandContext& context) coroutine_fn override;

 private:
  Result<void> parse_preallocation(const std::string& mode);
  Result<void> parse_change(std::string text);
  Result<void> resize(BlockNode& node) coroutine_fn;

  ImageOptions image_;
  Preallocation preallocation_ = Preallocation::kOff;
  bool quiet_ = false, shrink_ = false;
  std::string operand_;
  SizeChange change_;
};

void ResizeCommand::declare(OptionDeclarer& options) {
  image_.declare_format(options, "-f");
  image_.declare_image_opts(options);
  image_.declare_object(options);
  options.parsed(
      "--preallocation", "MODE", [this](const std::string& mode) { return parse_preallocation(mode); },
      "What becomes of new space: off, metadata, falloc or full");
  options.flag("-q", quiet_, "Print nothing but errors");
  options.flag("--shrink", shrink_, "Allow the image to become smaller");
  options.describe_operands("FILE [+|-]SIZE", "With a sign, SIZE is added or taken away. Options stand before SIZE.");
}

Result<void> ResizeCommand::parse_preallocation(const std::string& mode) {
  const auto found = find_preallocation(mode);
  if (!found.has_value()) return Error(EINVAL, fmt::format("Invalid preallocation mode '{}'", mode));
  preallocation_ = *found;
  return {};
}

Result<void> ResizeCommand::prepare(const CommandContext& context, std::vector<std::string> operands) {
  if (operands.size() != 2) return context.program.usage_error("Expecting image file name and size");
  operand_ = operands[0];
  return parse_change(operands[1]);
}

Result<void> ResizeCommand::parse_change(std::string text) {
  if (text.starts_with('+')) change_.kind = SizeChange::Kind::kGrow;
  if (text.starts_with('-')) change_.kind = SizeChange::Kind::kShrink;
  if (change_.kind != SizeChange::Kind::kAbsolute) text.erase(0, 1);
  Options size;
  size.set("size", text);
  change_.bytes = COIMG_TRY(size.take_size("size")).value_or(0);
  return {};
}

Result<int> ResizeCommand::run(CommandContext& context) {
  const OpenFlags flags{.writable = true, .resizable = true};
  const auto node = COIMG_TRY(open_operand(context, operand_, image_.format, image_.image_opts, flags));
  COIMG_TRY(close_after(*node, resize(*node)));
  if (!quiet_) context.console.out("Image resized.\n");
  return 0;
}

Result<void> ResizeCommand::resize(BlockNode& node) {
  const uint64_t old_length = node.length();
  const std::optional<uint64_t> new_length = change_.apply_to(old_length);
  if (!new_length.has_value()) return Error(EINVAL, "New image size must be positive");
  if (*new_length <= old_length && preallocation_ != Preallocation::kOff) {
    return Error(EINVAL, "Preallocation can only be used for growing images");
  }
  if (*new_length < old_length && !shrink_) {
    return Error(EINVAL,
                 fmt::format("Use the --shrink option to perform a shrink operation.\nwarning: {}", kShrinkWarning));
  }
  return node.co_truncate(*new_length, preallocation_);
}

}  // namespace

std::unique_ptr<Command> make_resize_command() { return std::make_unique<ResizeCommand>(); }

}  // namespace coimg
