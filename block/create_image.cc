// Making an image: the file first, then the format in it.
#include <unistd.h>

#include <cerrno>

#include <fmt/format.h>

#include "block/open.h"
#include "block/open_layer.h"
#include "block/util/math.h"

namespace coimg {

namespace {

/// The file of a new image, empty and kept from others who would write or resize it.
Result<std::unique_ptr<BlockNode>> make_file(const DriverRegistry& registry, const std::string& filename,
                                             const CreateOptions& options, bool& created) coroutine_fn {
  const ProtocolTarget target = COIMG_TRY(find_protocol(registry, filename));
  if (target.type->supports_create()) {
    COIMG_TRY(target.type->create_file(target.filename, options, created));
  }
  OpenFlags flags;
  flags.writable = true;
  flags.resizable = true;
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

/// The file that holds the data of a new image, as large as the disk. `created` as in make_file().
Result<void> make_data_file(const DriverRegistry& registry, const BlockNode& image, const std::string& path,
                            const CreateOptions& options, bool& created) coroutine_fn {
  const auto preallocation = find_preallocation(options.text("preallocation").value_or("off"));
  const bool reserve = preallocation == Preallocation::kFalloc || preallocation == Preallocation::kFull;
  const uint64_t bytes = align_up(options.number("size").value_or(0), kSectorSize);
  auto data = COIMG_TRY(make_file(registry, "file:" + path, options, created));
  Result<void> sized;
  if (data->file_identity() && data->file_identity() == image.file_identity()) {
    sized = Error(EINVAL, fmt::format("Data file '{}' is the image itself", path));
  }
  if (sized.ok()) sized = data->co_truncate(bytes, reserve ? *preallocation : Preallocation::kOff);
  auto closed = data->co_close();
  return sized.ok() ? std::move(closed) : std::move(sized);
}

/// Lets the format write itself; a protocol has nothing to write, its image is as large as the file.
Result<void> write_format(const DriverType& type, BlockNode& file, const std::string& filename,
                          const CreateOptions& options) coroutine_fn {
  if (type.kind() == DriverKind::kFormat) return type.create(&file, filename, options);
  return file.co_truncate(options.number("size").value_or(0));
}

}  // namespace

Result<void> create_image(const DriverRegistry& registry, const DriverType& type, const std::string& filename,
                          const CreateOptions& options, bool* created_file) {
  if (created_file) *created_file = false;
  COIMG_TRY(type.validate_create(options));
  bool created = false;
  auto made = make_file(registry, filename, options, created);
  if (created_file) *created_file = created;
  if (!made.ok()) return std::move(made).error();

  BlockNode& file = **made;
  const auto data_file = type.data_file_of(options);
  bool created_data_file = false;
  Result<void> written;
  if (data_file) written = make_data_file(registry, file, *data_file, options, created_data_file);
  if (written.ok()) written = write_format(type, file, filename, options);
  auto closed = file.co_close();
  if (written.ok()) return closed;
  if (created_data_file) ::unlink(data_file->c_str());
  return written;
}

}  // namespace coimg
