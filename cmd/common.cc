#include "cmd/common.h"

#include <fmt/format.h>

#include <cerrno>

namespace coimg {

namespace {

/// -U asks for an open without locks; options that say otherwise contradict it.
Result<void> check_force_share(const std::string& option_string) {
  Result<Options> options = parse_key_value_options(option_string);
  if (!options.ok()) return {};  // opening says what is wrong with it
  const auto wanted = options->take_bool("force-share");
  if (wanted.ok() && wanted->has_value() && !**wanted) {
    return Error(EINVAL, "--force-share/-U conflicts with image options");
  }
  return {};
}

}  // namespace

void CacheMode::apply_to(OpenFlags& flags) const {
  flags.direct = direct;
  flags.no_flush = no_flush;
  flags.write_through = write_through;
}

std::optional<CacheMode> find_cache_mode(std::string_view name) {
  if (name == "writeback") return CacheMode{};
  if (name == "writethrough") return CacheMode{.write_through = true};
  if (name == "none" || name == "off") return CacheMode{.direct = true};
  if (name == "directsync") return CacheMode{.direct = true, .write_through = true};
  if (name == "unsafe") return CacheMode{.no_flush = true};
  return std::nullopt;
}

Result<CacheMode> parse_cache_mode(std::string_view name) {
  if (const auto mode = find_cache_mode(name)) return *mode;
  return Error(EINVAL, fmt::format("Invalid cache option: {}", name));
}

Result<CacheMode> parse_source_cache_mode(std::string_view name) {
  if (const auto mode = find_cache_mode(name)) return *mode;
  return Error(EINVAL, fmt::format("Invalid source cache option: {}", name));
}

Result<OutputFormat> parse_output_format(std::string_view name) {
  if (name == "human") return OutputFormat::kHuman;
  if (name == "json") return OutputFormat::kJson;
  return Error(EINVAL, "--output must be used with human or json as argument.");
}

void ImageOptions::declare_format(OptionDeclarer& options, const char* names) {
  options.text(names, "FMT", format, "Format of the image; probed when not given");
}

void ImageOptions::declare_image_opts(OptionDeclarer& options) {
  options.flag("--image-opts", image_opts, "Image operands are driver options, not names");
}

void ImageOptions::declare_force_share(OptionDeclarer& options) {
  options.flag("-U,--force-share", force_share, "Open without locks, also when others use the image");
}

void ImageOptions::declare_object(OptionDeclarer& options) { objects.declare(options); }

void ImageOptions::declare(OptionDeclarer& options) {
  declare_format(options);
  declare_image_opts(options);
  declare_force_share(options);
  declare_object(options);
}

Result<std::unique_ptr<BlockNode>> open_operand(const CommandContext& context, const std::string& operand,
                                                const std::optional<std::string>& format, bool image_opts,
                                                OpenFlags flags) {
  if (image_opts && format.has_value()) return Error(EINVAL, "--image-opts and --format are mutually exclusive");
  if (image_opts && flags.force_share) COIMG_TRY(check_force_share(operand));
  const OpenRequest request{
      .name = {.text = operand, .is_option_string = image_opts}, .format = format.value_or(""), .flags = flags};
  auto node =
      open_image(context.registry, request).in_file(operand).with_context(fmt::format("Could not open '{}'", operand));
  if (node.ok()) note_opened(context, **node);
  return node;
}

void note_opened(const CommandContext& context, BlockNode& node) {
  for (BlockNode* layer = &node; layer != nullptr; layer = layer->backing()) {
    if (!layer->flags().writable) continue;
    layer->share_rate_limit(context.rate_limit);
    if (!context.on_output) continue;
    context.on_output(layer->subject());
    if (layer->data_file() != nullptr) context.on_output(layer->data_file()->subject());
  }
}

Result<std::string> take_one_operand(const CommandContext& context, std::vector<std::string> operands) {
  if (operands.size() != 1) return context.program.usage_error("Expecting one image file name");
  return std::move(operands.front());
}

}  // namespace coimg
