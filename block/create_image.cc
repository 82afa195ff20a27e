// Making an image: the file first, then the format in it.
#include <cerrno>

#include <fmt/format.h>

#include "block/open.h"
#include "block/open_layer.h"

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
  auto opened = open_protocol_node(target, Options(), flags);
  if (!opened.ok() && !target.type->supports_create()) {
    return std::move(opened).error().with_context(fmt::format(
        "Protocol driver '{}' does not support image creation, and opening the image failed", target.type->name()));
  }
  auto node = COIMG_TRY(std::move(opened)).node;
  auto locked = node->driver().set_permissions({kPermWrite | kPermResize, kPermAll & ~kPermResize});
  if (!locked.ok()) return close_after_error(*node, std::move(locked).error());
  return node;
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
  auto written = write_format(type, file, filename, options);
  auto closed = file.co_close();
  return written.ok() ? std::move(closed) : std::move(written);
}

}  // namespace coimg
