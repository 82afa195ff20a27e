// Opening one layer of an image: options, protocol, probing, locks, format.
//
// backing_chain.cc puts the layers together, create_image.cc makes new images, image_name.cc knows names.
#include "block/open.h"

#include <algorithm>
#include <cerrno>
#include <iterator>

#include <fmt/format.h>

#include "block/open_layer.h"
#include "block/protocol/new_files.h"
#include "block/util/buffer.h"
#include "block/warnings.h"

namespace coimg {

namespace {

/// What formats are recognised by lies in here.
constexpr uint64_t kProbeBytes = 2048;

/// Formats in formats in formats: no use is known for more than two, and each costs stack.
constexpr unsigned kMaxNesting = 8;

/// Options that change what a guest sees, so that the file's name alone does not lead to the same image again.
constexpr std::string_view kContentOptions[] = {"offset", "size"};

/// Options that only say how a file is accessed: no part of its name.
constexpr std::string_view kAccessOptions[] = {"aio", "locking", "x-check-cache-dropped"};

Result<DetectZeroes> take_detect_zeroes(Options& options) {
  const std::string choice = options.take_text("detect-zeroes").value_or("off");
  if (choice == "off") return DetectZeroes::kOff;
  if (choice == "on") return DetectZeroes::kOn;
  if (choice == "unmap") return DetectZeroes::kUnmap;
  return Error(EINVAL, fmt::format("invalid parameter value: {}", choice));
}

/// Names of nodes are for nobody here, but are checked: what others would refuse is a mistake.
Result<void> check_node_name(const std::string& name) {
  constexpr size_t kMaxNodeNameBytes = 31;
  if (!is_identifier(name)) return Error(EINVAL, fmt::format("Invalid node-name: '{}'", name));
  if (name.size() > kMaxNodeNameBytes) return Error(EINVAL, "Node name too long");
  return {};
}

/// Takes the options that every node has, into the flags it inherits from its parent.
Result<void> take_common_options(Options& options, OpenFlags& flags) {
  COIMG_TRY(options.take_bool("auto-read-only"));
  const auto discard = options.take_text("discard").value_or("");
  if (discard == "unmap" || discard == "on") {
    flags.discard_unmap = true;
  } else if (discard == "ignore" || discard == "off") {
    flags.discard_unmap = false;
  } else if (!discard.empty()) {
    return Error(EINVAL, "Invalid discard option");
  }
  flags.detect_zeroes = COIMG_TRY(take_detect_zeroes(options));
  if (const auto node_name = options.take_text("node-name")) COIMG_TRY(check_node_name(*node_name));
  flags.direct = COIMG_TRY(options.take_bool("cache.direct")).value_or(flags.direct);
  flags.no_flush = COIMG_TRY(options.take_bool("cache.no-flush")).value_or(flags.no_flush);
  flags.force_share = COIMG_TRY(options.take_bool("force-share")).value_or(flags.force_share);
  if (flags.force_share && flags.writable) {
    return Error(EINVAL, "force-share=on can only be used with read-only images");
  }
  if (COIMG_TRY(options.take_bool("read-only")).value_or(false) && flags.writable) {
    return Error(EACCES, "Block node is read-only");
  }
  return {};
}

Result<const DriverType*> find_driver(const DriverRegistry& registry, std::string_view name) {
  if (const DriverType* type = registry.find(name)) return type;
  return Error(ENOENT, fmt::format("Unknown driver '{}'", name));
}

/// What a driver has left of its options is a mistake of the user's.
Result<void> refuse_unknown_options(const DriverType& type, const Options& left) {
  if (left.empty()) return {};
  const std::string& key = left.values().begin()->first;
  if (type.kind() == DriverKind::kFormat) {
    return Error(EINVAL, fmt::format("Block format '{}' does not support the option '{}'", type.name(), key));
  }
  return Error(EINVAL, fmt::format("Block protocol '{}' doesn't support the option '{}'", type.name(), key));
}

/// The scalar of an option that names a node. There are no nodes with names here, so it never can be followed.
Error cannot_reference(Options& options) {
  const std::string reference = options.take_text("").value_or("");
  if (!options.empty()) {
    return {EINVAL, "Cannot reference an existing block device with additional options or a new filename"};
  }
  return {ENODEV, fmt::format("Cannot find device='{0}' nor node-name='{0}'", reference)};
}

/// What options lead to in a protocol.
ProtocolTarget target_of(const DriverType& type, Options& options) {
  return {&type, type.has_option_names() ? "" : options.take_text("filename").value_or("")};
}

/// A child given by options: a protocol, or a format over something else.
Result<OpenedLayer> open_child(OpenContext& context, Options options, OpenFlags flags) coroutine_fn {
  const auto driver = options.take_text("driver");
  if (!driver && !options.has("filename")) return Error(EINVAL, "Must specify either driver or file");
  const DriverType* type = COIMG_TRY(find_driver(context.registry, driver.value_or("file")));
  if (type->kind() == DriverKind::kProtocol) {
    COIMG_TRY(take_common_options(options, flags));
    const ProtocolTarget target = target_of(*type, options);
    return open_protocol_node(context, target, std::move(options), flags);
  }
  if (context.nesting >= kMaxNesting) return Error(ELOOP, "Image formats are nested too deep");
  // A chain of its own, which may not meet the files above either.
  OpenContext inner{context.registry, context.files, context.data_files, context.nesting + 1};
  return open_chain(inner, {std::nullopt, std::move(options), driver.value_or(""), flags});
}

/// The node that a format lies on.
Result<OpenedLayer> open_file(OpenContext& context, LayerRequest& request, const DriverType* format) coroutine_fn {
  Options options = request.options.take_child("file");
  if (options.has("")) return cannot_reference(options);
  OpenFlags flags = request.flags;
  flags.detect_zeroes = DetectZeroes::kOff;
  if (request.name) {
    const ProtocolTarget target = COIMG_TRY(find_protocol(context.registry, *request.name));
    return open_protocol_node(context, target, std::move(options), flags);
  }
  if (options.empty()) {
    return Error(EINVAL,
                 format ? "A block device must be specified for \"file\"" : "Must specify either driver or file");
  }
  return open_child(context, std::move(options), flags);
}

Result<const DriverType*> probe_format(const DriverRegistry& registry, BlockNode& file) coroutine_fn {
  AlignedBuffer buffer(kProbeBytes);
  const auto head = buffer.span().first(std::min(kProbeBytes, file.exact_length()));
  if (!head.empty()) COIMG_TRY(file.co_pread(0, head).with_context("Could not read image for determining its format"));
  return registry.probe(head);
}

void warn_about_probed_raw(const std::string& filename) {
  emit_warning(fmt::format(
      "WARNING: Image format was not specified for '{}' and probing guessed raw.\n"
      "         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be "
      "restricted.\n"
      "         Specify the 'raw' format explicitly to remove the restrictions.\n",
      filename));
}

bool contains(const std::vector<BlockNode::FileIdentity>& files, const BlockNode::FileIdentity& file) {
  return std::find(files.begin(), files.end(), file) != files.end();
}

/// Refuses a file that is already part of the chain, else remembers it.
Result<void> note_file(OpenContext& context, const BlockNode& file) {
  const auto identity = file.file_identity();
  if (!identity) return {};
  if (contains(context.files, *identity)) {
    return Error(ELOOP, fmt::format("{} '{}' creates an infinite loop.", context.role, file.filename()));
  }
  if (contains(context.data_files, *identity)) {
    return Error(EINVAL, fmt::format("{} '{}' holds the data of an image above it", context.role, file.filename()));
  }
  context.files.push_back(*identity);
  return {};
}

/// Recognises the format if it is not known, and takes the locks that it needs.
Result<const DriverType*> settle_format(OpenContext& context, const DriverType* format, BlockNode& file,
                                        const OpenFlags& flags) coroutine_fn {
  COIMG_TRY(note_file(context, file));
  if (!format) {
    if (!context.registry.trusts_images() && !flags.no_io) {
      return Error(EPERM, "the format is not guessed from the contents of an image that is not trusted; name it");
    }
    format = COIMG_TRY(probe_format(context.registry, file));
    if (flags.writable && format->name() == "raw") warn_about_probed_raw(file.filename());
  }
  COIMG_TRY(file.driver().set_permissions(format->file_permissions(flags)));
  return format;
}

/// Adds what leads to this node, and gives it the name that output shows: its file's when that says it all.
void name_node(OpenedLayer& layer, const DriverType& format, const Options& options, NodeDescription file_description) {
  bool plain = layer.node->file()->type().kind() == DriverKind::kProtocol &&
               !layer.node->file()->filename().starts_with("json:");
  layer.description.add("driver", std::string(format.name()));
  for (const std::string_view key : kContentOptions) {
    const auto given = options.values().find(key);
    if (given == options.values().end()) continue;
    layer.description.add(key, given->second);
    plain = false;
  }
  layer.description.add_child("file", std::move(file_description));
  layer.node->set_filename(plain ? layer.node->file()->filename() : "json:" + layer.description.to_json());
}

/// An image that is not trusted opens nothing: what it names could be anybody's file. One that is just being made has
/// the names that the user gave it.
Result<void> check_stored_name(const OpenContext& context, const BlockNode& image, std::string_view role,
                               const std::string& stored) {
  if (context.registry.trusts_images()) return {};
  const NewFiles* const made = image.flags().new_files;
  if (made != nullptr && made->find(image.subject()).has_value()) return {};
  return Error(EPERM, fmt::format("{} '{}' is named by an image that is not trusted, and not opened", role, stored));
}

/// Opens data files for the format of one layer.
class LayerDataFile final : public DataFileOpener {
 public:
  /// `options`: those of the user for the data file.
  LayerDataFile(OpenContext& context, BlockNode& node, Options options)
      : context_(context), node_(node), options_(std::move(options)) {}

  [[nodiscard]] bool named_by_user() const override { return !options_.empty(); }
  [[nodiscard]] bool follows_stored_names() const override { return context_.registry.trusts_images(); }

  Result<BlockNode*> open(const std::string& stored_name) coroutine_fn override {
    wanted_ = true;
    OpenFlags flags = node_.flags();
    flags.resizable = flags.writable;
    OpenedLayer data = COIMG_TRY(open_node(stored_name, flags));
    auto checked = check_and_lock(*data.node, flags);
    if (!checked.ok()) return close_after_error(*data.node, std::move(checked).error());
    node_.set_data_file(std::move(data.node));
    return node_.data_file();
  }

  [[nodiscard]] bool knows_format(std::string_view name) const override {
    const DriverType* const type = context_.registry.find(name);
    return type != nullptr && type->kind() == DriverKind::kFormat;
  }

  Result<BlockNode*> open_image(const std::string& stored_name, const std::string& format) coroutine_fn override {
    wanted_ = true;
    OpenFlags flags = node_.flags();
    flags.resizable = flags.writable;
    flags.exclusive_source = !flags.force_share;
    flags.no_backing = flags.check = false;
    flags.writable_below = 0;
    OpenedLayer data = COIMG_TRY(open_image_node(stored_name, format, flags));
    auto checked = check_and_lock(*data.node, flags);
    if (!checked.ok()) return close_after_error(*data.node, std::move(checked).error());
    for (const BlockNode* node = data.node.get(); node != nullptr; node = node->data_file()) {
      if (const auto identity = node->file_identity()) context_.data_files.push_back(*identity);
    }
    node_.set_data_file(std::move(data.node));
    return node_.data_file();
  }

  /// After the format has opened the image. Errors: EINVAL when the user named a file that the image has no use for.
  [[nodiscard]] Result<void> check_wanted() const {
    if (wanted_ || !named_by_user() || node_.flags().no_io) return {};
    return Error(EINVAL, "'data-file' can only be set for images with an external data file");
  }

 private:
  /// A chain of its own, which may not meet the files above.
  Result<OpenedLayer> open_image_node(const std::string& stored_name, const std::string& format, const OpenFlags& flags)
      coroutine_fn {
    if (options_.has("")) return cannot_reference(options_);
    if (named_by_user()) {
      // Where the user does not say otherwise it is what the image says; probing would let the guest choose.
      if (!options_.has("driver")) options_.set("driver", format);
      return open_child(context_, std::move(options_), flags);
    }
    if (context_.nesting >= kMaxNesting) return Error(ELOOP, "Image formats are nested too deep");
    OpenContext inner{context_.registry, context_.files, context_.data_files, context_.nesting + 1, "Image file"};
    std::string path = COIMG_TRY(stored_file_path(context_, node_, "Image file", stored_name, "data-file"));
    return open_chain(inner, {std::move(path), {}, format, flags}).with_context("Could not open image file");
  }

  Result<OpenedLayer> open_node(const std::string& stored_name, const OpenFlags& flags) coroutine_fn {
    if (options_.has("")) return cannot_reference(options_);
    if (named_by_user()) return open_child(context_, std::move(options_), flags);
    COIMG_TRY(check_stored_name(context_, node_, "Data file", stored_name));
    // Never a protocol or JSON: an image could lead anywhere with those.
    const ProtocolTarget target{COIMG_TRY(find_driver(context_.registry, "file")), stored_name};
    return open_protocol_node(context_, target, Options(), flags);
  }

  /// Two images that put their data into one file would destroy each other's.
  Result<void> check_and_lock(BlockNode& data, const OpenFlags& flags) coroutine_fn {
    if (data.type().kind() == DriverKind::kFormat) return {};  // has been seen to by open_child()
    if (const auto identity = data.file_identity()) {
      if (contains(context_.files, *identity) || contains(context_.data_files, *identity)) {
        return Error(EINVAL, fmt::format("Data file '{}' is part of the image in another role", data.filename()));
      }
      context_.data_files.push_back(*identity);
    }
    Permissions permissions{.used = kPermConsistentRead, .shared = kPermAll & ~kPermResize};
    if (flags.writable) permissions.used |= kPermWrite | kPermResize;
    if (flags.force_share) permissions.shared = kPermAll;
    return data.driver().set_permissions(permissions);
  }

  OpenContext& context_;
  BlockNode& node_;
  Options options_;
  bool wanted_ = false;  ///< the format has asked for the file
};

/// Lets the format read the image. The layer's node has its file.
Result<void> open_format(OpenContext& context, OpenedLayer& layer, const DriverType& format, Options& options)
    coroutine_fn {
  BlockNode& node = *layer.node;
  LayerDataFile data_file(context, node, format.supports_data_file() ? options.take_child("data-file") : Options());
  node.set_driver(COIMG_TRY(format
                                .open({.node = &node,
                                       .file = node.file(),
                                       .filename = node.filename(),
                                       .options = &options,
                                       .flags = node.flags(),
                                       .permissions = {},
                                       .data_file = &data_file})
                                .in_file(node.subject())));
  COIMG_TRY(data_file.check_wanted());
  return refuse_unknown_options(format, options);
}

/// Adds the options of a protocol that are part of its name.
void describe_options(NodeDescription& description, const Options& options) {
  for (const auto& [key, value] : options.values()) {
    const auto access = std::find(std::begin(kAccessOptions), std::end(kAccessOptions), key);
    if (access == std::end(kAccessOptions)) description.add(key, value);
  }
}

/// The node that a protocol lies on, by its name or by options.
Result<OpenedLayer> open_protocol_child(OpenContext& context, const DriverType& type, Options& options,
                                        const OpenFlags& flags) coroutine_fn {
  constexpr std::string_view kJsonPrefix = "json:";
  if (context.nesting >= kMaxNesting) return Error(ELOOP, "Protocols are nested too deep");
  OpenContext inner{context.registry, context.files, context.data_files, context.nesting + 1};
  const auto name = options.take_text(fmt::format("x-{}", type.child_key()));
  Options child = options.take_child(type.child_key());
  if (child.has("")) return cannot_reference(child);
  if (name && !child.empty()) return Error(EINVAL, "Can't specify 'file' and 'filename' options at the same time");
  if (name && name->starts_with(kJsonPrefix)) {
    child = COIMG_TRY(parse_json_options(std::string_view(*name).substr(kJsonPrefix.size())));
  } else if (name) {
    return open_protocol_node(inner, COIMG_TRY(find_protocol(context.registry, *name)), std::move(child), flags);
  } else if (child.empty()) {
    return Error(EINVAL, fmt::format("A block device must be specified for \"{}\"", type.child_key()));
  }
  return open_child(inner, std::move(child), flags);
}

/// Without locks: what they have to be is known once the format is. Takes all options, or refuses them.
Result<void> open_protocol_driver(OpenedLayer& layer, const ProtocolTarget& target, Options& options) coroutine_fn {
  BlockNode& node = *layer.node;
  node.set_driver(COIMG_TRY(target.type->open({.node = &node,
                                               .file = node.file(),
                                               .filename = target.filename,
                                               .options = &options,
                                               .flags = node.flags(),
                                               .permissions = {}})));
  return refuse_unknown_options(*target.type, options);
}

/// A protocol as the image itself: "-f file".
Result<OpenedLayer> open_bare_protocol(OpenContext& context, LayerRequest& request, const DriverType& type)
    coroutine_fn {
  ProtocolTarget target = target_of(type, request.options);
  if (request.name) target.filename = COIMG_TRY(find_protocol(context.registry, *request.name)).filename;
  auto layer = COIMG_TRY(open_protocol_node(context, target, std::move(request.options), request.flags));
  Permissions permissions;
  if (!request.flags.no_io) permissions.used |= kPermConsistentRead;
  if (request.flags.writable) permissions.used |= kPermWrite | kPermResize;
  if (request.flags.exclusive_source) permissions.shared &= ~(kPermWrite | kPermResize);
  auto locked = layer.node->driver().set_permissions(permissions);
  if (locked.ok()) locked = note_file(context, *layer.node);
  if (!locked.ok()) return close_after_error(*layer.node, std::move(locked).error());
  return layer;
}

}  // namespace

Error close_after_error(BlockNode& node, Error error) {
  (void)node.co_close().ok();  // the first error is the one that matters
  return error;
}

Result<std::string> stored_file_path(const OpenContext& context, const BlockNode& image, std::string_view role,
                                     const std::string& stored, std::string_view option) {
  COIMG_TRY(check_stored_name(context, image, role, stored));
  std::string name = resolve_backing_name(image.subject(), stored);
  const std::string protocol = split_protocol(name).protocol;
  if (protocol.empty() || protocol == "file") return name;
  if (protocol != "json") COIMG_TRY(find_protocol(context.registry, name));
  return Error(ENOTSUP,
               fmt::format("{} '{}' is not a local file; name it with {}.* options to use it", role, name, option));
}

Result<ProtocolTarget> find_protocol(const DriverRegistry& registry, const std::string& name) {
  const ProtocolName parts = split_protocol(name);
  if (parts.protocol.empty()) {
    return ProtocolTarget{COIMG_TRY(find_driver(registry, "file")), parts.rest};
  }
  for (const auto& type : registry.types()) {
    if (type->kind() != DriverKind::kProtocol || !type->handles_scheme(parts.protocol)) continue;
    // For the host's files the scheme says only that a path follows; for others it is part of an address.
    const bool is_path = parts.protocol == "file" || parts.protocol == "host_device";
    return ProtocolTarget{type.get(), is_path ? parts.rest : name};
  }
  return Error(ENOENT, fmt::format("Unknown protocol '{}'", parts.protocol));
}

Result<OpenedLayer> open_protocol_node(OpenContext& context, const ProtocolTarget& target, Options options,
                                       const OpenFlags& flags) {
  const DriverType& type = *target.type;
  OpenedLayer layer;
  layer.description.add("driver", std::string(type.name()));
  layer.node = std::make_unique<BlockNode>(target.filename, flags);
  if (type.has_option_names() && !target.filename.empty()) COIMG_TRY(type.parse_name(target.filename, options));
  if (!type.child_key().empty()) {
    OpenedLayer child = COIMG_TRY(open_protocol_child(context, type, options, flags));
    layer.node->set_file(std::move(child.node));
    layer.description.add_child(type.child_key(), std::move(child.description));
  }
  describe_options(layer.description, options);
  if (!type.has_option_names() && !target.filename.empty()) layer.description.add("filename", target.filename);

  auto opened = open_protocol_driver(layer, target, options);
  if (!opened.ok()) return close_after_error(*layer.node, std::move(opened).error());
  if (layer.node->filename().empty()) layer.node->set_filename("json:" + layer.description.to_json());
  return layer;
}

Result<OpenedLayer> open_layer(OpenContext& context, LayerRequest request) {
  COIMG_TRY(take_common_options(request.options, request.flags));
  const bool is_child = context.nesting > 0;  // those pass on what they are sent
  if (request.flags.detect_zeroes == DetectZeroes::kUnmap && !request.flags.discard_unmap && !is_child) {
    return Error(EINVAL, "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap");
  }
  auto driver = request.options.take_text("driver");
  if (!request.format.empty()) driver = request.format;
  const DriverType* const given = driver ? COIMG_TRY(find_driver(context.registry, *driver)) : nullptr;
  if (given && given->kind() == DriverKind::kProtocol) return open_bare_protocol(context, request, *given);

  OpenedLayer file = COIMG_TRY(open_file(context, request, given));
  auto settled = settle_format(context, given, *file.node, request.flags);
  if (!settled.ok()) return close_after_error(*file.node, std::move(settled).error());
  const DriverType& format = **settled;

  OpenedLayer layer;
  if (format.supports_backing()) layer.backing_options = request.options.take_child("backing");
  layer.node = std::make_unique<BlockNode>(std::string(), request.flags);
  layer.node->set_file(std::move(file.node));
  name_node(layer, format, request.options, std::move(file.description));
  auto opened = open_format(context, layer, format, request.options);
  if (!opened.ok()) return close_after_error(*layer.node, std::move(opened).error());
  if (!given && request.flags.writable && format.name() == "raw") {
    layer.node->protect_from_format_change(context.registry);
  }
  return layer;
}

}  // namespace coimg
