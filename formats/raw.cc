// The raw driver: the disk is the file, or a window into it.
//
//     file   |            |############################|            |
//            0         offset                    offset + size
//
// Every request goes on to the file, moved by the window's offset. All that is hard (alignment, overlaps, holes,
// growth) is done by the file's own node. This is the smallest driver, so also the place to see what one consists of: a
// BlockDriver for an open image, a DriverType for what can be said and done without one.
//
// A file whose length is not a multiple of a sector is shown to guests rounded up. The missing bytes read as zeros, and
// the file gets them when somebody writes there.
#include "formats/raw.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "block/node.h"
#include "block/util/math.h"

namespace coimg {
namespace {

/// The part of the file that is the disk.
struct RawWindow {
  uint64_t offset = 0;           ///< in bytes, of any alignment
  std::optional<uint64_t> size;  ///< in bytes, whole sectors; without it the window ends where the file does
};

class RawImage final : public BlockDriver {
 public:
  RawImage(const DriverType& type, BlockNode& file, RawWindow window) : type_(type), file_(file), window_(window) {}

  const DriverType& type() const override { return type_; }

  uint64_t length() const override {
    const uint64_t file_length = file_.exact_length();
    // Somebody else may have cut the file shorter than it was when the window was checked.
    return window_.size.value_or(file_length - std::min(file_length, window_.offset));
  }

  Result<void> preadv(uint64_t offset, const IoVector& iov) coroutine_fn override {
    return file_.co_preadv(window_.offset + offset, iov);
  }

  Result<void> pwritev(uint64_t offset, const IoVector& iov, const WriteOptions& options) coroutine_fn override {
    return file_.co_pwritev(window_.offset + offset, iov, options);
  }

  Result<void> pwrite_zeroes(uint64_t offset, uint64_t bytes, const ZeroOptions& options) coroutine_fn override {
    return file_.co_pwrite_zeroes(window_.offset + offset, bytes, options);
  }

  Result<void> pdiscard(uint64_t offset, uint64_t bytes) coroutine_fn override {
    return file_.co_pdiscard(window_.offset + offset, bytes);
  }

  Result<void> flush() coroutine_fn override { return file_.co_flush(); }

  Result<BlockStatus> block_status(uint64_t offset, uint64_t bytes, bool want_zero) coroutine_fn override {
    const uint64_t position = window_.offset + offset;
    const auto stored = COIMG_TRY(file_.co_block_status(position, bytes, want_zero));
    return BlockStatus{.bytes = stored.bytes,
                       .allocated = stored.allocated,
                       .data = stored.data,
                       .zero = stored.zero,
                       .host_offset = position,
                       .file = &file_};
  }

  Result<void> truncate(uint64_t new_length, Preallocation preallocation) coroutine_fn override {
    if (window_.size) return Error(ENOTSUP, "Cannot resize fixed-size raw disks");
    const auto file_length = checked_add(window_.offset, new_length);
    if (!file_length) return Error(EFBIG, "the new length is too large");
    return file_.co_truncate(*file_length, preallocation);
  }

  bool created_reads_as_zeros() const override { return file_.driver().created_reads_as_zeros(); }

 private:
  // Constant after open.
  const DriverType& type_;
  BlockNode& file_;
  const RawWindow window_;
};

/// Takes the window from the options `offset` and `size`. Errors: EINVAL when it is not inside the file.
Result<RawWindow> take_window(Options& options, uint64_t file_length) {
  RawWindow window;
  window.offset = COIMG_TRY(options.take_size("offset")).value_or(0);
  window.size = COIMG_TRY(options.take_size("size"));
  if (window.offset > file_length) {
    return Error(EINVAL, fmt::format("Offset ({}) cannot be greater than size of the containing file ({})",
                                     window.offset, file_length));
  }
  if (!window.size) return window;
  if (*window.size > file_length - window.offset) {
    // The two blanks are what scripts know.
    return Error(EINVAL, fmt::format("The sum of offset ({}) and size ({}) has to be smaller or equal to the  actual "
                                     "size of the containing file ({})",
                                     window.offset, *window.size, file_length));
  }
  // Else the last sector would reach behind the window.
  if (!is_aligned(*window.size, kSectorSize)) {
    return Error(EINVAL, fmt::format("Specified size is not multiple of {}", kSectorSize));
  }
  return window;
}

/// The value of the file's option "preallocation". Errors: EINVAL for what a raw image cannot have.
Result<Preallocation> preallocation_of(const CreateOptions& options) {
  const std::string mode = options.text("preallocation").value_or("off");
  if (mode.empty() || mode == "off") return Preallocation::kOff;
  if (mode == "falloc") return Preallocation::kFalloc;
  if (mode == "full") return Preallocation::kFull;
  if (mode == "metadata") return Error(EINVAL, "Unsupported preallocation mode: metadata");
  return Error(EINVAL, fmt::format("invalid parameter value: {}", mode));
}

/// A guest's disk is made of whole sectors.
Result<uint64_t> round_up_size(uint64_t size) {
  if (size > kMaxFileOffset - kSectorSize) {
    return Error(EFBIG, "The image size is too large for file format 'raw'");
  }
  return align_up(size, kSectorSize);
}

class RawDriverType final : public DriverType {
 public:
  std::string_view name() const override { return "raw"; }
  DriverKind kind() const override { return DriverKind::kFormat; }

  // No probe(): a raw image looks like anything. It is what the registry takes when no other format is recognised.

  Result<std::unique_ptr<BlockDriver>> open(OpenArgs args) const coroutine_fn override {
    const RawWindow window = COIMG_TRY(take_window(*args.options, args.file->exact_length()));
    return std::make_unique<RawImage>(*this, *args.file, window);
  }

  /// Raw images have no metadata that others could confuse, so they are shared with everybody, but for the source of a
  /// conversion, which is not to change meanwhile.
  Permissions file_permissions(const OpenFlags& flags) const override {
    Permissions permissions;
    if (flags.force_share) return permissions;
    if (!flags.no_io) permissions.used |= kPermConsistentRead;
    if (flags.writable) permissions.used |= kPermConsistentRead | kPermWrite;
    if (flags.writable && flags.resizable) permissions.used |= kPermResize;
    if (flags.exclusive_source) permissions.shared &= ~(kPermWrite | kPermResize);
    return permissions;
  }

  bool supports_create() const override { return true; }

  std::vector<CreateOptionSpec> create_options() const override {
    return {{.name = "size", .type = OptionType::kSize, .help = "Virtual disk size"}};
  }

  Result<void> validate_create(const CreateOptions& options) const override {
    COIMG_TRY(preallocation_of(options));
    COIMG_TRY(round_up_size(options.number("size").value_or(0)));
    return {};
  }

  Result<void> create(BlockNode* file, const std::string&, const CreateOptions& options) const coroutine_fn override {
    const Preallocation preallocation = COIMG_TRY(preallocation_of(options));
    const uint64_t size = COIMG_TRY(round_up_size(options.number("size").value_or(0)));
    return file->co_truncate(size, preallocation);
  }

  /// Options make no difference, not even bad ones.
  Result<MeasureResult> measure(const CreateOptions&, const MeasureRequest& request) const coroutine_fn override {
    if (request.virtual_size > kMaxFileOffset) return Error(EFBIG, "The image size is too large for file format 'raw'");
    const uint64_t bytes = align_up(request.virtual_size, kSectorSize);
    return MeasureResult{.required = bytes, .fully_allocated = bytes, .bitmaps = std::nullopt};
  }
};

}  // namespace

std::unique_ptr<DriverType> make_raw_driver_type() { return std::make_unique<RawDriverType>(); }

}  // namespace coimg
