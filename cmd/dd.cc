// dd: copies a part of an image into a new one, every byte of it.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "block/copy.h"
#include "block/open.h"
#include "block/protocol/new_files.h"
#include "block/util/math.h"
#include "cmd/command.h"
#include "cmd/common.h"
#include "cmd/sizes.h"
#include "cmd/stop_signals.h"
#include "cmd/target.h"

namespace coimg {

namespace {

constexpr uint64_t kMaxBlockBytes = INT32_MAX;

/// Words for an error of the copy. Which file and where stays.
Error copy_failed(const Error& error, const BlockNode& target) {
  if (error.errnum() == ECANCELED) return error;
  const char* const what = error.file() == target.subject() ? "error while writing to output image file"
                                                            : "error while reading from input image file";
  return Error::from_errno(error.errnum(), what).where(error);
}

class DdCommand final : public Command {
 public:
  [[nodiscard]] std::string_view name() const override { return "dd"; }
  [[nodiscard]] std::string_view summary() const override { return "Copy a part of an image, zeros included"; }
  [[nodiscard]] std::string_view syntax() const override {
    return "[--image-opts] [-U] [-f fmt] [-O output_fmt] [bs=block_size] [count=blocks] [skip=blocks] if=input "
           "of=output";
  }
  void declare(OptionDeclarer& options) override;
  Result<void> prepare(const CommandContext& context, std::vector<std::string> operands) override;
  Result<int> run(CommandContext& context) coroutine_fn override;

 private:
  Result<void> take_operand(const std::string& operand);
  [[nodiscard]] uint64_t input_end(uint64_t length) const;
  [[nodiscard]] CopyWindow window(uint64_t end) const;
  Result<int> copy(CommandContext& context, BlockNode& source) coroutine_fn;
  Result<void> create(const CommandContext& context, const TargetType& type, uint64_t bytes, NewFiles& files)
      coroutine_fn;
  Result<void> fill(const CommandContext& context, BlockNode& source, CopyWindow part, const NewFiles& files,
                    const StopSignals& signals) coroutine_fn;
  Result<void> check_not_the_source(const BlockNode& source) const;

  ImageOptions image_;
  std::string target_format_ = "raw";
  std::optional<std::string> input_, output_;
  uint64_t block_bytes_ = kSectorSize;
  std::optional<uint64_t> count_;  ///< in blocks, from the start of the input
  uint64_t skip_ = 0;              ///< in blocks
};

void DdCommand::declare(OptionDeclarer& options) {
  image_.declare_format(options, "-f");
  image_.declare_image_opts(options);
  image_.declare_force_share(options);
  image_.declare_object(options);
  options.text("-O", "FMT", target_format_, "Format of the output (default: raw)");
  options.describe_operands("if=INPUT of=OUTPUT [bs=BYTES] [count=BLOCKS] [skip=BLOCKS]",
                            "Blocks have 512 bytes unless bs= says otherwise. COUNT includes those that are skipped.");
}

Result<void> DdCommand::prepare(const CommandContext&, std::vector<std::string> operands) {
  for (const std::string& operand : operands) COIMG_TRY(take_operand(operand));
  if (!input_.has_value() || !output_.has_value()) return Error(EINVAL, "Must specify both input and output files");
  return {};
}

Result<void> DdCommand::take_operand(const std::string& operand) {
  const size_t equals = operand.find('=');
  const std::string name = operand.substr(0, equals);
  const bool known = name == "bs" || name == "count" || name == "skip" || name == "if" || name == "of";
  if (!known || equals == std::string::npos) return Error(EINVAL, "unrecognized operand " + name);
  const std::string value = operand.substr(equals + 1);
  if (name == "if") {
    input_ = value;
    return {};
  }
  if (name == "of") {
    output_ = value;
    return {};
  }
  const bool is_block_size = name == "bs";
  const uint64_t number = COIMG_TRY(
      parse_operand_size(value, name, is_block_size ? 1 : 0, is_block_size ? kMaxBlockBytes : kMaxOperandSize));
  if (is_block_size) {
    block_bytes_ = number;
  } else if (name == "count") {
    count_ = number;
  } else {
    skip_ = number;
  }
  return {};
}

Result<int> DdCommand::run(CommandContext& context) {
  const OpenFlags flags{.force_share = image_.force_share};
  const auto source = COIMG_TRY(open_operand(context, *input_, image_.format, image_.image_opts, flags));
  return close_after(*source, copy(context, *source));
}

/// Where reading ends in an input of `length` bytes. Skipped blocks count.
uint64_t DdCommand::input_end(uint64_t length) const {
  if (!count_.has_value()) return length;
  return std::min(checked_mul(*count_, block_bytes_).value_or(length), length);
}

/// The part in front of `end` that is asked for. Its offset is beyond the end when more is skipped than there is.
CopyWindow DdCommand::window(uint64_t end) const {
  const uint64_t start = checked_mul(skip_, block_bytes_).value_or(UINT64_MAX);
  return {.offset = start, .bytes = start < end ? end - start : 0};
}

Result<int> DdCommand::copy(CommandContext& context, BlockNode& source) {
  if (context.registry.find(target_format_) == nullptr) return Error(EINVAL, "Unknown file format");
  const TargetType type = COIMG_TRY(find_target_type(context.registry, target_format_, *output_));
  COIMG_TRY(check_not_the_source(source));
  const uint64_t end = input_end(source.length());
  const CopyWindow part = window(end);
  if (part.offset > end) {
    context.console.error(Error(EINVAL, *input_ + ": cannot skip to specified offset"));  // and the output is empty
  }

  NewFiles files;
  const StopSignals signals(context, [&files] { files.discard(); });
  Result<void> outcome = create(context, type, part.bytes, files);
  if (outcome.ok() && part.bytes != 0) outcome = fill(context, source, part, files, signals);
  if (outcome.ok()) outcome = files.publish(/*durable=*/true);
  if (outcome.ok()) return 0;
  if (signals.received() == 0) return std::move(outcome).error();
  return context.stopped_by(signals.received());
}

/// Raw images that are read do not keep others from overwriting them.
Result<void> DdCommand::check_not_the_source(const BlockNode& source) const {
  const auto identity = find_host_file(*output_);
  for (const BlockNode* node = &source; identity.has_value() && node != nullptr; node = node->backing()) {
    if (node->file_identity() == identity && node->type().name() == "raw") {
      return Error(EINVAL, fmt::format("'{}' is the output and also the input", *output_));
    }
  }
  return {};
}

Result<void> DdCommand::create(const CommandContext& context, const TargetType& type, uint64_t bytes, NewFiles& files) {
  CreateOptions options = target_create_options(type);
  COIMG_TRY(options.set("size", std::to_string(bytes)));
  COIMG_TRY(type.format->complete_create_options(context.registry, *output_, true, options));
  auto made = create_image(context.registry, *type.format, *output_, options, files);
  if (made.ok()) return {};
  Error error = std::move(made).error();
  if (has_clusters(type)) error = explain_create_error(std::move(error), type);
  return std::move(error).in_file(*output_).with_context(
      fmt::format("{}: error while creating output image", *output_));
}

Result<void> DdCommand::fill(const CommandContext& context, BlockNode& source, CopyWindow part, const NewFiles& files,
                             const StopSignals& signals) {
  const OpenFlags flags{.writable = true, .new_files = &files};
  const auto target = COIMG_TRY(open_operand(context, *output_, target_format_, false, flags));
  const CopyOptions options{.sparse_bytes = 0, .store_zeros = true, .window = part, .should_stop = [&signals] {
                              return signals.received() != 0;
                            }};
  Result<void> copied = co_copy({&source}, *target, options);
  if (!copied.ok()) copied = copy_failed(copied.error(), *target);
  return close_after(*target, std::move(copied));
}

}  // namespace

std::unique_ptr<Command> make_dd_command() { return std::make_unique<DdCommand>(); }

}  // namespace coimg
