// create: a new, empty image.
#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>

#include "block/open.h"
#include "cmd/command.h"
#include "cmd/common.h"
#include "cmd/sizes.h"
#include "cmd/target.h"

namespace coimg {

namespace {

/// Whether two names reach one host file. Overwriting it would make an image its own backing file.
bool is_same_file(const std::string& target, const BlockNode& other) {
  const ProtocolName parts = split_protocol(target);
  if (!parts.protocol.empty() && parts.protocol != "file") return false;
  struct stat status{};
  if (stat(parts.rest.c_str(), &status) != 0) return false;
  const auto identity = other.file_identity();
  return identity.has_value() && *identity == BlockNode::FileIdentity{status.st_dev, status.st_ino};
}

class CreateCommand final : public Command {
 public:
  [[nodiscard]] std::string_view name() const override { return "create"; }
  [[nodiscard]] std::string_view summary() const override { return "Create an image"; }
  [[nodiscard]] std::string_view syntax() const override {
    return "[--object objectdef] [-q] [-f fmt] [-b backing_file [-F backing_fmt]] [-u] [-o options] filename [size]";
  }
  void declare(OptionDeclarer& options) override;
  Result<void> prepare(const CommandContext& context, std::vector<std::string> operands) override;
  Result<int> run(CommandContext& context) coroutine_fn override;

 private:
  Result<void> create(CommandContext& context) coroutine_fn;
  Result<void> set_backing_options(CreateOptions& options, const TargetType& type) const;
  Result<void> settle_backing(const CommandContext& context, CreateOptions& options) coroutine_fn;

  bool quiet_ = false;
  std::string format_ = "raw";
  std::optional<std::string> backing_, backing_format_;
  bool unsafe_ = false;  ///< do not look at the backing file
  OptionList option_list_;
  ObjectStore objects_;
  std::optional<std::string> filename_;
  std::optional<uint64_t> size_;
};

void CreateCommand::declare(OptionDeclarer& options) {
  options.flag("-q", quiet_, "Print nothing but errors");
  options.text("-f", "FMT", format_, "Format of the new image (default: raw)");
  options.text("-b", "BACKING", backing_, "Backing file: the image is an overlay of it");
  options.text("-F", "FMT", backing_format_, "Format of the backing file");
  options.flag("-u", unsafe_, "Do not open the backing file; SIZE is needed then");
  option_list_.declare(options);
  objects_.declare(options);
  options.describe_operands("FILE [SIZE]", "Without SIZE it is that of the backing file.");
}

Result<void> CreateCommand::prepare(const CommandContext& context, std::vector<std::string> operands) {
  if (!operands.empty()) filename_ = operands[0];
  if (option_list_.asks_for_help()) return {};
  if (operands.empty()) return context.program.usage_error("Expecting image file name");
  if (operands.size() > 1) {
    size_ = COIMG_TRY(parse_operand_size(operands[1], "image size"));
  }
  if (operands.size() > 2) return context.program.usage_error(fmt::format("Unexpected argument: {}", operands[2]));
  return {};
}

Result<int> CreateCommand::run(CommandContext& context) {
  if (option_list_.asks_for_help()) return print_create_option_help(context, format_, filename_);
  COIMG_TRY(create(context).in_file(*filename_).with_context(*filename_));
  return 0;
}

Result<void> CreateCommand::create(CommandContext& context) {
  const TargetType type = COIMG_TRY(find_target_type(context.registry, format_, *filename_));
  CreateOptions options = target_create_options(type);
  if (option_list_.given()) COIMG_TRY(options.parse(option_list_.text()));
  if (size_.has_value()) {
    if (options.given("size")) return Error(EINVAL, "The image size must be specified only once");
    COIMG_TRY(options.set("size", std::to_string(*size_)));
  }
  COIMG_TRY(set_backing_options(options, type));
  COIMG_TRY(type.format->complete_create_options(context.registry, *filename_, !unsafe_, options));
  COIMG_TRY(settle_backing(context, options));
  const std::optional<uint64_t> size = options.number("size");
  if (!size.has_value()) return Error(EINVAL, "Image creation needs a size parameter");
  if (*size > kMaxOperandSize) {
    return Error(EINVAL, fmt::format("Invalid image size specified. Must be between 0 and {}.", kMaxOperandSize));
  }

  if (!quiet_)
    context.console.out(fmt::format("Formatting '{}', fmt={} {}\n", *filename_, format_, options.describe()));
  COIMG_TRY(check_backing_format(context.registry, options));
  if (context.on_output) context.on_output(*filename_);
  Result<void> result = create_image(context.registry, *type.format, *filename_, options);
  if (result.ok()) return {};
  return explain_create_error(std::move(result).error(), type);
}

/// Puts -b and -F among the options, over what -o says.
Result<void> CreateCommand::set_backing_options(CreateOptions& options, const TargetType& type) const {
  const bool supported = type.format->supports_backing();
  if (backing_.has_value()) {
    if (!supported) return Error(ENOTSUP, fmt::format("Backing file not supported for file format '{}'", format_));
    COIMG_TRY(options.set("backing_file", *backing_));
  }
  if (backing_format_.has_value()) {
    if (!supported) {
      return Error(ENOTSUP, fmt::format("Backing file format not supported for file format '{}'", format_));
    }
    COIMG_TRY(options.set("backing_fmt", *backing_format_));
  }
  return {};
}

/// Checks the backing file and takes the size from it when none was given.
///
/// It is opened without locks, so that an overlay of an image in use can be made.
Result<void> CreateCommand::settle_backing(const CommandContext& context, CreateOptions& options) {
  const std::optional<std::string> backing = options.text("backing_file");
  if (!backing.has_value()) return {};
  if (backing->empty()) return Error(EINVAL, "Expected backing file name, got empty string");
  if (*backing == *filename_) {
    return Error(EINVAL, "Error: Trying to create an image with the same filename as the backing file");
  }
  const Error missing_format(EINVAL, "Backing file specified without backing format");
  const std::optional<std::string> format = options.text("backing_fmt");
  if (unsafe_) return format.has_value() ? Result<void>() : missing_format;

  const OpenRequest request{.name = {.text = resolve_backing_name(*filename_, *backing)},
                            .format = format.value_or(""),
                            .flags = {.force_share = true}};
  auto opened = open_image(context.registry, request);
  if (!opened.ok()) return std::move(opened).error().with_hint("Could not open backing image.");
  BlockNode& node = **opened;
  const uint64_t length = node.length();
  const std::string detected(node.type().name());
  const bool same_file = is_same_file(*filename_, node);
  COIMG_TRY(node.co_close());

  if (!format.has_value()) return Error(missing_format).with_hint(fmt::format("Detected format of {}.", detected));
  if (same_file) {
    return Error(EINVAL, fmt::format("Error: The backing file '{}' is the image itself under another name", *backing));
  }
  if (!options.given("size")) COIMG_TRY(options.set("size", std::to_string(length)));
  return {};
}

}  // namespace

std::unique_ptr<Command> make_create_command() { return std::make_unique<CreateCommand>(); }

}  // namespace coimg
