// measure: how large a new image will become.
#include <fmt/format.h>

#include <cerrno>

#include "cmd/command.h"
#include "cmd/common.h"
#include "cmd/json_writer.h"
#include "cmd/option_list.h"
#include "cmd/sizes.h"
#include "cmd/snapshot_choice.h"
#include "cmd/target.h"

namespace coimg {

namespace {

class MeasureCommand final : public Command {
 public:
  [[nodiscard]] std::string_view name() const override { return "measure"; }
  [[nodiscard]] std::string_view summary() const override { return "Tell how large a new image will become"; }
  [[nodiscard]] std::string_view syntax() const override {
    return "[--output=ofmt] [-O output_fmt] [-o options] [--size N | [--object objectdef] [--image-opts] [-f fmt] "
           "[-l snapshot_param] filename]";
  }
  [[nodiscard]] bool forgives_bad_options() const override { return true; }
  [[nodiscard]] CommandWork work() const override { return CommandWork::kRead; }
  void declare(OptionDeclarer& options) override;
  Result<void> prepare(const CommandContext& context, std::vector<std::string> operands) override;
  Result<int> run(CommandContext& context) coroutine_fn override;

 private:
  Result<MeasureResult> measure(const CommandContext& context, BlockNode* source) coroutine_fn;
  Result<CreateOptions> target_options(const CommandContext& context, const DriverType& format) const;
  [[nodiscard]] MeasureMethod method(const CommandContext& context) const;
  [[nodiscard]] std::string render(const MeasureResult& result) const;

  ImageOptions image_;
  SnapshotChoice snapshot_;
  std::string target_format_ = "raw";
  OptionList option_list_;
  std::optional<uint64_t> size_;
  bool detect_zeroes_ = false;
  OutputFormat output_ = OutputFormat::kHuman;
  std::optional<std::string> operand_;
};

void MeasureCommand::declare(OptionDeclarer& options) {
  image_.declare_format(options, "-f");
  image_.declare_image_opts(options);
  image_.declare_force_share(options);
  image_.declare_object(options);
  snapshot_.declare(options);
  option_list_.declare(options);
  options.text("-O", "FMT", target_format_, "Format of the new image (default: raw)");
  options.parsed(
      "--size", "BYTES",
      [this](const std::string& text) -> Result<void> {
        size_ = COIMG_TRY(parse_operand_size(text, "image size"));
        return {};
      },
      "The new image is for an empty disk of this size");
  options.flag("--detect-zeroes", detect_zeroes_,
               "Read the data, and leave out the zeros in them that convert leaves out");
  options.parsed(
      "--output", "human|json",
      [this](const std::string& format) -> Result<void> {
        output_ = COIMG_TRY(parse_output_format(format));
        return {};
      },
      "Form of the report");
  options.describe_operands("[FILE]", "Without FILE, --size is needed.");
}

Result<void> MeasureCommand::prepare(const CommandContext&, std::vector<std::string> operands) {
  if (operands.size() > 1) return Error(EINVAL, "At most one filename argument is allowed.");
  if (!operands.empty()) operand_ = operands.front();
  if (!operand_.has_value() && (image_.image_opts || image_.format.has_value() || snapshot_.given())) {
    return Error(EINVAL, "--image-opts, -f, and -l require a filename argument.");
  }
  if (!operand_.has_value() && !size_.has_value()) {
    return Error(EINVAL, "Either --size N or one filename must be specified.");
  }
  if (operand_.has_value() && size_.has_value()) {
    return Error(EINVAL, "--size N cannot be used together with a filename.");
  }
  return {};
}

Result<int> MeasureCommand::run(CommandContext& context) {
  Result<MeasureResult> result;
  if (operand_.has_value()) {
    const OpenFlags flags{.force_share = image_.force_share};
    const auto source = COIMG_TRY(open_operand(context, *operand_, image_.format, image_.image_opts, flags));
    result = close_after(*source, measure(context, source.get()));
  } else {
    result = measure(context, nullptr);
  }
  if (!result.ok()) return std::move(result).error();
  if (const auto& error = result->bitmaps_error) {
    context.console.warning(fmt::format("How much the bitmaps take is not known: {}", error->message()));
  }
  context.console.out(render(*result));
  return 0;
}

Result<MeasureResult> MeasureCommand::measure(const CommandContext& context, BlockNode* source) {
  if (snapshot_.given()) COIMG_TRY(snapshot_.show(*source));
  const DriverType* const format = context.registry.find(target_format_);
  if (format == nullptr) return Error(EINVAL, fmt::format("Unknown file format '{}'", target_format_));
  const CreateOptions options = COIMG_TRY(target_options(context, *format));
  return format->measure(options, {.virtual_size = source != nullptr ? source->length() : size_.value_or(0),
                                   .source = source,
                                   .method = method(context)});
}

Result<CreateOptions> MeasureCommand::target_options(const CommandContext& context, const DriverType& format) const {
  const TargetType type{.format = &format, .protocol = context.registry.find("file")};
  CreateOptions options = target_create_options(type);
  if (!option_list_.given()) return options;
  const Result<void> parsed = options.parse(option_list_.text());
  if (parsed.ok()) return options;
  context.console.error(parsed.error());
  return Error(EINVAL, fmt::format("Invalid options for file format '{}'", target_format_));
}

/// Scripts that call qemu-img get its figures.
MeasureMethod MeasureCommand::method(const CommandContext& context) const {
  if (detect_zeroes_) return MeasureMethod::kCopyNonZero;
  return context.program.as_qemu_img ? MeasureMethod::kAllTables : MeasureMethod::kCopy;
}

std::string MeasureCommand::render(const MeasureResult& result) const {
  if (output_ == OutputFormat::kJson) {
    JsonValue object = JsonValue::object();
    if (result.bitmaps.has_value()) object.add("bitmaps", *result.bitmaps);
    object.add("required", result.required);
    object.add("fully-allocated", result.fully_allocated);
    return object.render();
  }
  std::string text =
      fmt::format("required size: {}\nfully allocated size: {}\n", result.required, result.fully_allocated);
  if (result.bitmaps.has_value()) text += fmt::format("bitmaps size: {}\n", *result.bitmaps);
  return text;
}

}  // namespace

std::unique_ptr<Command> make_measure_command() { return std::make_unique<MeasureCommand>(); }

}  // namespace coimg
