#include "cmd/target.h"

#include <fmt/format.h>

#include <cerrno>
#include <memory>
#include <vector>

#include "block/open.h"

namespace coimg {

namespace {

/// The protocol for "SCHEME:rest", and the host's files for a plain path.
Result<const DriverType*> find_protocol(const DriverRegistry& registry, const std::string& filename) {
  const std::string scheme = split_protocol(filename).protocol;
  if (scheme.empty()) {
    if (const DriverType* file = registry.find("file")) return file;
  }
  for (const auto& type : registry.types()) {
    if (type->handles_scheme(scheme)) return type.get();
  }
  return Error(EINVAL, fmt::format("Unknown protocol '{}'", scheme));
}

/// A driver with options for new images may still need one that is there, as devices do.
Result<void> check_can_create(const DriverType& type) {
  if (type.supports_create() || !type.create_options().empty()) return {};
  return Error(ENOTSUP, fmt::format("Format driver '{}' does not support image creation", type.name()));
}

}  // namespace

Result<TargetType> find_target_type(const DriverRegistry& registry, const std::string& format,
                                    const std::string& filename) {
  const DriverType* const format_type = registry.find(format);
  if (format_type == nullptr) return Error(EINVAL, fmt::format("Unknown file format '{}'", format));
  const DriverType* const protocol = COIMG_TRY(find_protocol(registry, filename));
  COIMG_TRY(check_can_create(*format_type));
  if (protocol->has_option_names() && !protocol->supports_create()) {
    return Error(ENOTSUP, fmt::format("Protocol driver '{}' does not support image creation", protocol->name()));
  }
  return TargetType{format_type, protocol};
}

CreateOptions target_create_options(const TargetType& type) {
  std::vector<CreateOptionSpec> specs = type.format->create_options();
  const CreateOptions own(specs);
  for (const CreateOptionSpec& spec : type.protocol->create_options()) {
    if (own.find_spec(spec.name) == nullptr) specs.push_back(spec);
  }
  return CreateOptions(std::move(specs));
}

Result<void> check_backing_format(const DriverRegistry& registry, const CreateOptions& options) {
  const std::optional<std::string> format = options.text("backing_fmt");
  if (!format.has_value()) return {};
  if (!options.text("backing_file").has_value()) {
    return Error(EINVAL, "Backing format cannot be used without backing file");
  }
  if (registry.find(*format) == nullptr) {
    return Error(EINVAL, fmt::format("Parameter 'backing-fmt' does not accept value '{}'", *format));
  }
  return {};
}

Result<int> print_create_option_help(const CommandContext& context, const std::string& format,
                                     const std::optional<std::string>& filename) {
  if (filename.has_value()) {
    const TargetType type = COIMG_TRY(find_target_type(context.registry, format, *filename));
    context.console.out(render_option_help("Supported options:", target_create_options(type).specs()));
    return 0;
  }
  const DriverType* const type = context.registry.find(format);
  if (type == nullptr) return Error(EINVAL, fmt::format("Unknown file format '{}'", format));
  COIMG_TRY(check_can_create(*type));
  context.console.out(render_option_help(fmt::format("Supported {} options:", format), type->create_options()));
  context.console.out(
      "\nThe protocol level may support further options.\n"
      "Specify the target filename to include those options.\n");
  return 0;
}

bool has_clusters(const TargetType& type) {
  return CreateOptions(type.format->create_options()).find_spec("cluster_size") != nullptr;
}

Error explain_create_error(Error error, const TargetType& type) {
  if (error.errnum() != EFBIG || error.message().starts_with("The image size is too large")) return error;
  return Error(EFBIG, fmt::format("The image size is too large for file format '{}'{}", type.format->name(),
                                  has_clusters(type) ? " (try using a larger cluster size)" : ""));
}

}  // namespace coimg
