// IoImage: the image that I/O commands work on.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "block/node.h"
#include "block/options.h"
#include "cmd/command.h"
#include "cmd/common.h"

namespace coimg {

/// How an image is opened: the options that the program and its command "open" have in common.
struct IoOpenMode {
  bool writable = true;
  bool snapshot = false;      ///< writes go to a temporary overlay
  bool copy_on_read = false;  ///< what is read from a backing file is kept in the image
  bool force_share = false;
  bool discard_unmap = true;  ///< as qemu-io, unlike the commands
  bool native_aio = false;
  CacheMode cache = {.write_through = true};

  // Values of options. Errors: "Invalid ... option: X".
  Result<void> set_cache(const std::string& name);
  Result<void> set_discard(const std::string& name);
  Result<void> set_aio(const std::string& name);
  void set_direct() { cache = {.direct = true}; }  ///< -n
};

/// What is to be opened: a name, or options alone.
struct IoTarget {
  std::optional<std::string> name;
  std::string format;
  Options options;
};

/// The open image, if any.
class IoImage {
 public:
  IoImage() = default;
  IoImage(const IoImage&) = delete;
  IoImage& operator=(const IoImage&) = delete;

  /// Errors: "can't open device NAME: CAUSE". There must not be one.
  Result<void> open(const CommandContext& context, IoTarget target, IoOpenMode mode) coroutine_fn;
  Result<void> close() coroutine_fn;

  /// What reopen changes; the rest stays.
  struct Changes {
    std::optional<bool> writable;
    std::optional<CacheMode> cache;
    Options options;
  };
  /// Opens it anew with the changes. On error it is open as it was, unless that fails too.
  Result<void> reopen(const CommandContext& context, const Changes& changes) coroutine_fn;

  [[nodiscard]] bool is_open() const { return node_ != nullptr; }
  [[nodiscard]] BlockNode& node() const { return *node_; }
  [[nodiscard]] bool writable() const { return mode_.writable; }
  [[nodiscard]] bool copy_on_read() const { return mode_.copy_on_read; }
  /// EIO unless [offset, offset + bytes) lies inside the disk.
  [[nodiscard]] Result<void> check_range(uint64_t offset, uint64_t bytes) const;

 private:
  Result<std::unique_ptr<BlockNode>> open_node(const CommandContext& context) const coroutine_fn;

  std::unique_ptr<BlockNode> node_;
  IoTarget target_;
  IoOpenMode mode_;
};

}  // namespace coimg
