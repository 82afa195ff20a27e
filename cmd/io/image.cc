#include "cmd/io/image.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <utility>

#include "block/open.h"
#include "block/util/math.h"
#include "block/util/unique_fd.h"
#include "cmd/common.h"
#include "cmd/target.h"

namespace coimg {

namespace {

OpenFlags flags_of(const IoOpenMode& mode) {
  OpenFlags flags;
  flags.writable = flags.resizable = mode.writable;
  flags.force_share = mode.force_share;
  flags.discard_unmap = mode.discard_unmap;
  mode.cache.apply_to(flags);
  return flags;
}

/// Makes an empty file that nobody else has, and returns its name.
Result<std::string> make_temporary_file() {
  const char* const directory = std::getenv("TMPDIR");
  std::string path =
      fmt::format("{}/coimg.XXXXXX", directory != nullptr && *directory != '\0' ? directory : "/var/tmp");
  const UniqueFd fd(mkstemp(path.data()));
  if (!fd.valid()) return Error::from_errno(errno, fmt::format("Could not create temporary file '{}'", path));
  return path;
}

/// A writable overlay of `base`, in a file that is gone when it is closed.
Result<std::unique_ptr<BlockNode>> make_temporary_overlay(const CommandContext& context,
                                                          std::unique_ptr<BlockNode>& base) coroutine_fn {
  const std::string name = "file:" + COIMG_TRY(make_temporary_file());
  const std::string path = name.substr(name.find(':') + 1);
  const auto open = [&]() coroutine_fn -> Result<std::unique_ptr<BlockNode>> {
    const TargetType type = COIMG_TRY(find_target_type(context.registry, "qcow2", name));
    CreateOptions options = target_create_options(type);
    COIMG_TRY(options.set("size", std::to_string(base->length())));
    COIMG_TRY(create_image(context.registry, *type.format, name, options));
    return open_image(
        context.registry,
        {.name = {.text = name}, .format = "qcow2", .flags = {.writable = true, .no_backing = true, .no_flush = true}});
  };
  auto overlay = open();
  unlink(path.c_str());
  if (overlay.ok()) (*overlay)->set_backing(std::move(base));
  return overlay;
}

}  // namespace

Result<void> IoOpenMode::set_cache(const std::string& name) {
  cache = COIMG_TRY(parse_cache_mode(name));
  return {};
}

Result<void> IoOpenMode::set_discard(const std::string& name) {
  if (name != "unmap" && name != "on" && name != "ignore" && name != "off") {
    return Error(EINVAL, fmt::format("Invalid discard option: {}", name));
  }
  discard_unmap = name == "unmap" || name == "on";
  return {};
}

Result<void> IoOpenMode::set_aio(const std::string& name) {
  if (name != "threads" && name != "native" && name != "io_uring") {
    return Error(EINVAL, fmt::format("Invalid aio option: {}", name));
  }
  native_aio = name == "native";
  return {};
}

Result<void> IoImage::open(const CommandContext& context, IoTarget target, IoOpenMode mode) {
  if (!mode.writable) mode.writable = !COIMG_TRY(target.options.take_bool("read-only")).value_or(true);
  target_ = std::move(target);
  mode_ = mode;
  const std::string failure = target_.name.has_value() ? "can't open device " + *target_.name : "can't open";
  node_ = COIMG_TRY(open_node(context).with_context(failure));
  note_opened(context, *node_);
  // When it is opened again nothing is to be guessed.
  if (!mode_.snapshot) target_.format = node_->type().name();
  return {};
}

Result<std::unique_ptr<BlockNode>> IoImage::open_node(const CommandContext& context) const {
  if (mode_.native_aio && !mode_.cache.direct) {
    return Error(EINVAL, "aio=native was specified, but it requires cache.direct=on, which was not specified.");
  }
  // No name is an empty string of options.
  OpenRequest request{.name = {.text = target_.name.value_or(""), .is_option_string = !target_.name.has_value()},
                      .format = target_.format,
                      .flags = flags_of(mode_),
                      .options = target_.options};
  if (mode_.snapshot) {
    request.flags.writable = request.flags.resizable = false;
    auto base = COIMG_TRY(open_image(context.registry, request));
    auto overlay = make_temporary_overlay(context, base);
    if (!overlay.ok()) static_cast<void>(base->co_close().ok());
    return overlay;
  }
  if (mode_.copy_on_read && !mode_.writable) return Error(EACCES, "Can't use copy-on-read on read-only device");
  return open_image(context.registry, request);
}

Result<void> IoImage::close() {
  const auto node = std::move(node_);
  return node->co_close();
}

Result<void> IoImage::reopen(const CommandContext& context, const Changes& changes) {
  const IoTarget old_target = target_;
  const IoOpenMode old_mode = mode_;
  mode_.writable = changes.writable.value_or(mode_.writable);
  mode_.cache = changes.cache.value_or(mode_.cache);
  for (const auto& [key, value] : changes.options.values()) target_.options.set(key, value);
  if (mode_.snapshot) return {};  // the overlay is in a file without a name

  auto closed = close();
  auto opened = open_node(context);
  if (!opened.ok()) {
    target_ = old_target;
    mode_ = old_mode;
    auto again = open_node(context);
    if (again.ok()) node_ = *std::move(again);
    return std::move(opened).error();
  }
  node_ = *std::move(opened);
  return closed;
}

Result<void> IoImage::check_range(uint64_t offset, uint64_t bytes) const {
  if (range_within(offset, bytes, node_->length())) return {};
  return Error::from_errno(EIO);
}

}  // namespace coimg
