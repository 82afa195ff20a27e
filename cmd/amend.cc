// amend: changes creation options of an image that is there.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "block/options.h"
#include "cmd/command.h"
#include "cmd/common.h"
#include "cmd/option_list.h"
#include "cmd/progress.h"

namespace coimg {

namespace {

constexpr double kProgressStep = 1.0;

class AmendCommand final : public Command {
 public:
  [[nodiscard]] std::string_view name() const override { return "amend"; }
  [[nodiscard]] std::string_view summary() const override { return "Change creation options of an image"; }
  [[nodiscard]] std::string_view syntax() const override {
    return "[--object objectdef] [--image-opts] [-p] [-q] [-f fmt] [-t cache] [--force] -o options filename";
  }
  void declare(OptionDeclarer& options) override;
  Result<void> prepare(const CommandContext& context, std::vector<std::string> operands) override;
  Result<int> run(CommandContext& context) coroutine_fn override;

 private:
  Result<std::unique_ptr<BlockNode>> open(const CommandContext& context) const coroutine_fn;
  Result<std::optional<OpenRequest>> find_moved_data_file(const CommandContext& context, OpenFlags flags) const
      coroutine_fn;
  Result<int> amend(CommandContext& context, BlockNode& node, Progress& progress) coroutine_fn;
  Result<CreateOptions> parse_options(const CommandContext& context, const DriverType& type) const;

  ImageOptions image_;
  OptionList option_list_;
  std::string cache_name_ = "writeback";
  CacheMode cache_;
  bool show_progress_ = false, quiet_ = false, force_ = false;
  std::string operand_;
};

void AmendCommand::declare(OptionDeclarer& options) {
  image_.declare_format(options, "-f");
  image_.declare_image_opts(options);
  image_.declare_object(options);
  option_list_.declare(options);
  options.text("-t", "CACHE", cache_name_, "Cache mode of the image (default: writeback)");
  options.flag("-p", show_progress_, "Show progress");
  options.flag("-q", quiet_, "Print nothing but errors");
  options.flag("--force", force_, "Allow changes that may lock you out of an encrypted image");
  options.describe_operands("FILE", "The options to change are given by -o; -o help lists them.");
}

Result<void> AmendCommand::prepare(const CommandContext& context, std::vector<std::string> operands) {
  if (!option_list_.given()) return context.program.usage_error("Must specify options (-o)");
  if (operands.size() > 1) return Error(EINVAL, "Expecting one image file name");
  if (!operands.empty()) operand_ = std::move(operands.front());
  return {};
}

/// The table of `-o help`, or the refusal of formats in which nothing can be changed.
Result<int> print_help(const CommandContext& context, const DriverType& type) {
  const auto specs = type.amend_options();
  if (specs.empty()) {
    return Error(ENOTSUP, fmt::format("Format driver '{}' does not support option amendment", type.name()));
  }
  context.console.out(render_option_help(fmt::format("Amend options for '{}':", type.name()), specs));
  return 0;
}

Result<int> AmendCommand::run(CommandContext& context) {
  Progress progress(context.console, show_progress_ && !quiet_, kProgressStep);
  const bool help = option_list_.asks_for_help();
  if (help && image_.format.has_value()) {
    const DriverType* const type = context.registry.find(*image_.format);
    if (type == nullptr) return Error(EINVAL, fmt::format("Unknown file format '{}'", *image_.format));
    return print_help(context, *type);
  }
  if (operand_.empty()) return Error(EINVAL, "Expecting one image file name");
  cache_ = COIMG_TRY(parse_cache_mode(cache_name_));
  const auto node = COIMG_TRY(open(context));
  if (help) return close_after(*node, print_help(context, node->type()));
  return close_after(*node, amend(context, *node, progress));
}

/// An image whose data file was moved is opened with the file that it is to name from now on.
Result<std::unique_ptr<BlockNode>> AmendCommand::open(const CommandContext& context) const {
  OpenFlags flags{.writable = true, .resizable = true};
  cache_.apply_to(flags);
  auto node = open_operand(context, operand_, image_.format, image_.image_opts, flags);
  if (node.ok() || image_.image_opts || option_list_.asks_for_help()) return node;
  const auto moved = find_moved_data_file(context, flags);
  if (!moved.ok() || !moved->has_value()) return node;
  auto opened = open_image(context.registry, **moved).with_context(fmt::format("Could not open '{}'", operand_));
  if (opened.ok()) note_opened(context, **opened);
  return opened;
}

/// How to open the image with the data file that -o names; nothing when it has another problem than a missing one. The
/// backing file may have got another place together with it, and is found again by rebase.
Result<std::optional<OpenRequest>> AmendCommand::find_moved_data_file(const CommandContext& context,
                                                                      OpenFlags flags) const {
  const auto node =
      COIMG_TRY(open_operand(context, operand_, image_.format, false, {.no_backing = true, .check = true}));
  const auto find = [&]() coroutine_fn -> Result<std::optional<OpenRequest>> {
    const CreateOptions wanted = COIMG_TRY(parse_options(context, node->type()));
    const auto plan = node->type().data_file_of(operand_, wanted);
    if (node->data_file() != nullptr || !plan || !find_host_file("file:" + plan->path)) {
      return std::optional<OpenRequest>();
    }
    const std::string backing = COIMG_TRY(node->co_info()).backing_filename;
    flags.no_backing = !backing.empty() && !find_host_file(resolve_backing_name(operand_, backing));
    OpenRequest request{.name = {.text = operand_}, .format = image_.format.value_or(""), .flags = flags};
    request.options.set("data-file.file.driver", "file");
    request.options.set("data-file.file.filename", plan->path);
    return std::optional(std::move(request));
  };
  return close_after(*node, find());
}

Result<int> AmendCommand::amend(CommandContext& context, BlockNode& node, Progress& progress) {
  const CreateOptions options = COIMG_TRY(parse_options(context, node.type()));
  COIMG_TRY(node.co_amend(options, [&progress](uint64_t done, uint64_t total) { progress.update(done, total); }));
  progress.finish();
  return 0;
}

Result<CreateOptions> AmendCommand::parse_options(const CommandContext& context, const DriverType& type) const {
  CreateOptions options(type.amend_options());
  if (options.specs().empty()) {
    return Error(ENOTSUP, fmt::format("Format driver '{}' does not support option amendment", type.name()));
  }
  auto parsed = options.parse(option_list_.text());
  if (!parsed.ok()) {
    CreateOptions creation(type.create_options());
    if (!creation.parse(option_list_.text()).ok()) return std::move(parsed).error();
    return std::move(parsed).error().with_hint("This option is only supported for image creation\n");
  }
  if (options.given("backing_file") || options.given("backing_fmt")) {
    return Error(EINVAL, "Cannot amend the backing file")
        .with_hint(fmt::format("You can use '{} rebase' instead.\n", context.program.name));
  }
  return options;
}

}  // namespace

std::unique_ptr<Command> make_amend_command() { return std::make_unique<AmendCommand>(); }

}  // namespace coimg
