// Making an image: the file first, then the format in it.
#include <sys/stat.h>

#include <cerrno>

#include <fmt/format.h>

#include "block/open.h"
#include "block/open_layer.h"
#include "block/protocol/new_files.h"
#include "block/util/math.h"

namespace coimg {

namespace {

/// What makes the file of an image: a protocol that is asked for as the image's type, else what the name says.
Result<ProtocolTarget> find_creator(const DriverRegistry& registry, const DriverType& type,
                                    const std::string& filename) {
  ProtocolTarget target = COIMG_TRY(find_protocol(registry, filename));
  if (type.kind() == DriverKind::kProtocol) target.type = &type;
  return target;
}

/// The file of a new image, empty and kept from others who would write or resize it.
Result<std::unique_ptr<BlockNode>> make_file(const DriverRegistry& registry, const ProtocolTarget& target,
                                             const CreateOptions& options, NewFiles& files) coroutine_fn {
  if (target.type->supports_create()) {
    COIMG_TRY(target.type->create_file(target.filename, options, files));
  }
  OpenFlags flags;
  flags.writable = true;
  flags.resizable = true;
  flags.new_files = &files;
  // Nobody can reach a file before it is published, and that writes it down.
  flags.no_flush = files.find(target.filename).has_value();
  OpenContext context{registry};
  auto opened = open_protocol_node(context, target, Options(), flags);
  if (!opened.ok() && !target.type->supports_create()) {
    return std::move(opened).error().with_context(fmt::format(
        "Protocol driver '{}' does not support image creation, and opening the image failed", target.type->name()));
  }
  auto node = COIMG_TRY(std::move(opened)).node;
  auto locked = node->driver().set_permissions({kPermWrite | kPermResize, kPermAll & ~kPermResize});
  if (!locked.ok()) return close_after_error(*node, std::move(locked).error());
  return node;
}

/// Refuses a data file that is the new image itself or what lies below it, under whatever name.
Result<void> check_data_file(const std::string& filename, const DataFilePlan& plan, const CreateOptions& options,
                             const NewFiles& files) {
  const auto identity = find_host_file("file:" + plan.path, &files);
  if (!identity) return {};
  if (identity == find_host_file(filename, &files)) {
    return Error(EINVAL, fmt::format("Data file '{}' is the image itself", plan.path));
  }
  const auto backing = options.find_spec("backing_file") ? options.text("backing_file") : std::nullopt;
  if (backing && identity == find_host_file(resolve_backing_name(filename, *backing), &files)) {
    return Error(EINVAL, fmt::format("Data file '{}' is the backing file", plan.path));
  }
  return {};
}

/// The file that holds the data of a new image as plain bytes, as large as the disk.
Result<void> make_plain_data_file(const DriverRegistry& registry, const std::string& path, const CreateOptions& options,
                                  NewFiles& files) coroutine_fn {
  const auto preallocation = find_preallocation(options.text("preallocation").value_or("off"));
  const bool reserve = preallocation == Preallocation::kFalloc || preallocation == Preallocation::kFull;
  const uint64_t bytes = align_up(options.number("size").value_or(0), kSectorSize);
  const ProtocolTarget target = COIMG_TRY(find_protocol(registry, "file:" + path));
  auto data = COIMG_TRY(make_file(registry, target, options, files));
  auto sized = data->co_truncate(bytes, reserve ? *preallocation : Preallocation::kOff);
  auto closed = data->co_close();
  return sized.ok() ? std::move(closed) : std::move(sized);
}

/// Makes an image that is there as long as the new one's disk. It is not cut: its data may be all that the user wants.
Result<void> lengthen_data_image(const DriverRegistry& registry, const DataFilePlan& plan, uint64_t bytes)
    coroutine_fn {
  const OpenFlags flags{.writable = true, .resizable = true, .exclusive_source = true};
  const auto data =
      COIMG_TRY(open_image(registry, {.name = {.text = "file:" + plan.path}, .format = plan.format, .flags = flags}));
  const uint64_t length = align_down(data->exact_length(), kSectorSize);
  Result<void> sized;
  if (length > bytes) {
    sized = Error(EINVAL, fmt::format("'{}' has {} bytes, more than the {} of the new disk, and is not cut", plan.path,
                                      length, bytes));
  } else if (length < bytes) {
    sized = data->co_truncate(bytes);
  }
  auto closed = data->co_close();
  return sized.ok() ? std::move(closed) : std::move(sized);
}

/// The image that holds the data of a new one: the one that is there, unless its file is empty, or one made for it.
Result<void> make_data_image(const DriverRegistry& registry, const DataFilePlan& plan, const CreateOptions& options,
                             NewFiles& files) coroutine_fn {
  const uint64_t bytes = align_up(options.number("size").value_or(0), kSectorSize);
  const std::string name = "file:" + plan.path;
  const DriverType* const format = registry.find(plan.format);
  if (!format || format->kind() != DriverKind::kFormat) {
    return Error(EINVAL, fmt::format("Unknown file format '{}'", plan.format));
  }
  struct stat status{};
  const bool exists = stat(plan.path.c_str(), &status) == 0;
  if (exists && !(S_ISREG(status.st_mode) && status.st_size == 0)) return lengthen_data_image(registry, plan, bytes);

  CreateOptions data_options(format->create_options());
  COIMG_TRY(data_options.set("size", std::to_string(bytes)));
  COIMG_TRY(format->complete_create_options(registry, name, true, data_options));
  return create_image(registry, *format, name, data_options, files);
}

Result<void> make_data_file(const DriverRegistry& registry, const DataFilePlan& plan, const CreateOptions& options,
                            NewFiles& files) coroutine_fn {
  return plan.format.empty() ? make_plain_data_file(registry, plan.path, options, files)
                             : make_data_image(registry, plan, options, files);
}

/// Lets the format write itself; a protocol has nothing to write, its image is as large as the file.
Result<void> write_format(const DriverType& type, BlockNode& file, const std::string& filename,
                          const CreateOptions& options) coroutine_fn {
  if (type.kind() == DriverKind::kFormat) return type.create(&file, filename, options);
  return file.co_truncate(options.number("size").value_or(0));
}

}  // namespace

std::optional<BlockNode::FileIdentity> find_host_file(const std::string& name, const NewFiles* new_files) {
  const ProtocolName parts = split_protocol(name);
  struct stat status{};
  if (!parts.protocol.empty() && parts.protocol != "file") return std::nullopt;
  const auto unnamed = new_files != nullptr ? new_files->find(parts.rest) : std::nullopt;
  if (stat(unnamed.value_or(parts.rest).c_str(), &status) != 0) return std::nullopt;
  return BlockNode::FileIdentity{status.st_dev, status.st_ino};
}

Result<void> create_image(const DriverRegistry& registry, const DriverType& type, const std::string& filename,
                          const CreateOptions& options, NewFiles& files) {
  COIMG_TRY(type.validate_create(options));
  const auto plan = type.data_file_of(filename, options);
  if (plan) COIMG_TRY(check_data_file(filename, *plan, options, files));  // before anything is emptied
  const auto file = COIMG_TRY(make_file(registry, COIMG_TRY(find_creator(registry, type, filename)), options, files));

  Result<void> written;
  if (plan) written = check_data_file(filename, *plan, options, files);
  if (plan && written.ok()) written = make_data_file(registry, *plan, options, files);
  if (plan && written.ok()) written = check_data_file(filename, *plan, options, files);  // now that it is there
  if (written.ok()) written = write_format(type, *file, filename, options);
  auto closed = file->co_close();
  return written.ok() ? std::move(closed) : std::move(written);
}

Result<void> create_image(const DriverRegistry& registry, const DriverType& type, const std::string& filename,
                          const CreateOptions& options) {
  NewFiles files;
  COIMG_TRY(create_image(registry, type, filename, options, files));
  return files.publish(/*durable=*/true);
}

}  // namespace coimg
