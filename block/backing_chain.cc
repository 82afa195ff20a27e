// From the top layer of an image down its backing chain.
//
// The chain is opened in a loop, not by recursion: its length comes from files, and a coroutine's stack is small.
#include <algorithm>
#include <cerrno>

#include <fmt/format.h>

#include "block/open.h"
#include "block/open_layer.h"

namespace coimg {

namespace {

/// Longer chains are taken for a mistake; people advise against more than a few dozen layers.
constexpr unsigned kMaxBackingDepth = 200;

/// A backing file is only read, unless something is committed to it, and none of what the user has asked for the top
/// holds for it but how to access files.
OpenFlags backing_flags(const OpenFlags& top) {
  OpenFlags flags;
  flags.writable = flags.resizable = top.writable_below == 1;
  if (top.writable_below > 1) flags.writable_below = top.writable_below - 1;
  flags.write_through = top.write_through;
  flags.force_share = top.force_share;
  flags.direct = top.direct;
  flags.no_flush = top.no_flush;
  flags.new_files = top.new_files;
  return flags;
}

bool names_a_file(const Options& options) {
  return std::ranges::any_of(
      options.values(), [](const auto& option) { return option.first == "file" || option.first.starts_with("file."); });
}

/// What lies below `node`, of which `overrides` says what differs from the image's header; nothing at the chain's end.
Result<std::optional<LayerRequest>> find_backing(const OpenContext& context, BlockNode& node, Options overrides)
    coroutine_fn {
  const OpenFlags& flags = node.flags();
  if (flags.no_io || flags.no_backing || !node.type().supports_backing()) return std::optional<LayerRequest>();
  if (overrides.has("")) {
    const std::string reference = overrides.take_text("").value_or("");
    if (reference.empty()) return std::optional<LayerRequest>();  // null, or how its absence was written before
    return Error(ENODEV, fmt::format("Cannot find device='{0}' nor node-name='{0}'", reference));
  }
  const ImageInfo info = COIMG_TRY(node.co_info());
  if (info.backing_unused || (info.backing_filename.empty() && overrides.empty())) return std::optional<LayerRequest>();

  LayerRequest request{.name = {}, .options = std::move(overrides), .format = {}, .flags = backing_flags(flags)};
  if (!request.options.has("driver")) request.format = info.backing_format;
  if (!names_a_file(request.options) && !info.backing_filename.empty()) {
    request.name = COIMG_TRY(stored_file_path(context, node, "Backing file", info.backing_filename, "backing"));
  }
  return std::optional(std::move(request));
}

/// Opens what lies below `node`, `depth` layers under the top; nothing at the chain's end.
Result<std::optional<OpenedLayer>> open_backing(OpenContext& context, BlockNode& node, Options overrides,
                                                unsigned depth) coroutine_fn {
  auto request = COIMG_TRY(find_backing(context, node, std::move(overrides)));
  if (!request) return std::optional<OpenedLayer>();
  if (depth > kMaxBackingDepth) {
    return Error(ELOOP, fmt::format("The backing chain has more than {} layers", kMaxBackingDepth));
  }
  return std::optional(COIMG_TRY(open_layer(context, std::move(*request))));
}

/// The error as seen from the top: once for each level, so that one can count; once for loops, which have no level.
Error in_backing_file(Error error, unsigned depth) {
  if (error.errnum() == ELOOP) depth = 1;
  for (unsigned level = 0; level < depth; ++level) error = std::move(error).with_context("Could not open backing file");
  return error;
}

}  // namespace

Result<OpenedLayer> open_chain(OpenContext& context, LayerRequest request) {
  OpenedLayer top = COIMG_TRY(open_layer(context, std::move(request)));
  context.role = "Backing file";
  BlockNode* overlay = top.node.get();
  Options overrides = std::move(top.backing_options);
  for (unsigned depth = 1;; ++depth) {
    auto below = open_backing(context, *overlay, std::move(overrides), depth);
    if (!below.ok()) return close_after_error(*top.node, in_backing_file(std::move(below).error(), depth));
    if (!*below) return top;
    overrides = std::move((*below)->backing_options);
    overlay->set_backing(std::move((*below)->node));
    overlay = overlay->backing();
  }
}

Result<std::unique_ptr<BlockNode>> open_image(const DriverRegistry& registry, const OpenRequest& request) {
  constexpr std::string_view kJsonPrefix = "json:";
  const std::string& text = request.name.text;
  LayerRequest layer{.name = {}, .options = {}, .format = request.format, .flags = request.flags};
  if (request.name.is_option_string) {
    layer.options = COIMG_TRY(parse_key_value_options(text));
  } else if (text.starts_with(kJsonPrefix)) {
    layer.options = COIMG_TRY(parse_json_options(std::string_view(text).substr(kJsonPrefix.size())));
  } else {
    layer.name = text;
  }
  for (const auto& [key, value] : request.options.values()) layer.options.set(key, value);
  if (layer.name && layer.options.has("file.filename")) {
    return Error(EINVAL, "Can't specify 'file' and 'filename' options at the same time");
  }
  OpenContext context{registry};
  return COIMG_TRY(open_chain(context, std::move(layer))).node;
}

}  // namespace coimg
