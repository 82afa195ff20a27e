#include "cmd/conversion.h"

#include <fmt/format.h>

#include <cerrno>
#include <ranges>
#include <utility>

#include "block/open.h"
#include "block/util/math.h"
#include "block/verify.h"
#include "cmd/sizes.h"

namespace coimg {

Conversion::Conversion(CommandContext& context, const ConvertRequest& request, Progress& progress)
    : context_(context),
      request_(request),
      progress_(progress),
      backing_(request.backing),
      backing_format_(request.backing_format),
      stop_signals_(context, [this] { new_files_.discard(); }) {}

Result<int> Conversion::run() {
  Result<int> result = convert();
  Result<void> closed = close_all();
  if (result.ok() && !closed.ok()) result = std::move(closed).error();
  if (result.ok()) {
    Result<void> published = publish_target();
    if (!published.ok()) result = std::move(published).error();
  }
  if (result.ok()) return result;
  new_files_.discard();
  if (stop_signals_.received() == 0) return result;
  return context_.stopped_by(stop_signals_.received());
}

Result<int> Conversion::convert() {
  COIMG_TRY(open_sources());
  if (request_.snapshot.given()) COIMG_TRY(show_snapshot());
  if (!request_.skip_create) COIMG_TRY(plan_target());
  if (request_.target_is_zero && has_backing()) {
    // Callers know this refusal by its text; its exit code has always been that of success.
    return context_.fail(0, Error(EINVAL, "Cannot use --target-is-zero when the destination image has a backing file"));
  }
  COIMG_TRY(check_backing());
  if (!request_.skip_create) COIMG_TRY(check_compression(*target_type_.format));
  if (request_.bitmaps) COIMG_TRY(check_bitmaps());
  COIMG_TRY(check_not_a_source());
  if (!request_.skip_create) COIMG_TRY(create_target());
  COIMG_TRY(open_target());
  if (request_.bitmaps && !target_->driver().supports_bitmaps()) {
    return Error(ENOTSUP, fmt::format("Format driver '{}' does not support bitmaps", target_->type().name()));
  }
  COIMG_TRY(copy());
  if (request_.bitmaps) COIMG_TRY(copy_bitmaps());
  if (request_.verify) COIMG_TRY(verify());
  progress_.finish();
  return 0;
}

Result<void> Conversion::open_sources() {
  OpenFlags flags{.force_share = request_.image.force_share, .exclusive_source = true};
  request_.source_cache.apply_to(flags);
  for (const std::string& name : request_.sources) {
    sources_.push_back(
        COIMG_TRY(open_operand(context_, name, request_.image.format, request_.image.image_opts, flags)));
    const auto sum = checked_add(source_bytes_, sources_.back()->length());
    if (!sum.has_value() || *sum > kMaxOperandSize) return Error(EFBIG, "the sources are too large together");
    source_bytes_ = *sum;
  }
  return {};
}

Result<void> Conversion::show_snapshot() {
  if (sources_.size() > 1) return Error(EINVAL, "No support for concatenating multiple snapshot");
  COIMG_TRY(request_.snapshot.show(*sources_.front()));
  source_bytes_ = sources_.front()->length();
  return {};
}

/// Finds the drivers and settles the options that the target is created with. Changes no file.
Result<void> Conversion::plan_target() {
  const std::string& format = *request_.target_format;
  target_type_ = COIMG_TRY(find_target_type(context_.registry, format, request_.target));
  create_options_.emplace(target_create_options(target_type_));
  CreateOptions& options = *create_options_;
  if (request_.option_list.given()) COIMG_TRY(options.parse(request_.option_list.text()));
  COIMG_TRY(options.set("size", std::to_string(source_bytes_)));

  const bool supports_backing = target_type_.format->supports_backing();
  if (backing_.has_value()) {
    if (!supports_backing)
      return Error(ENOTSUP, fmt::format("Backing file not supported for file format '{}'", format));
    COIMG_TRY(options.set("backing_file", *backing_));
  }
  if (backing_format_.has_value()) {
    if (!supports_backing) {
      return Error(ENOTSUP, fmt::format("Backing file format not supported for file format '{}'", format));
    }
    COIMG_TRY(options.set("backing_fmt", *backing_format_));
  }
  COIMG_TRY(target_type_.format->complete_create_options(context_.registry, request_.target, true, options));
  if (supports_backing) {
    backing_ = options.text("backing_file");
    backing_format_ = options.text("backing_fmt");
  }
  return {};
}

Result<void> Conversion::check_backing() const {
  if (!has_backing()) return {};
  if (sources_.size() > 1) {
    return Error(EINVAL,
                 "Having a backing file for the target makes no sense when concatenating multiple input images");
  }
  if (request_.skip_create) return {};  // what the target already has is taken as it is
  if (backing_->empty()) return Error(EINVAL, "Expected backing file name, got empty string");
  if (!backing_format_.has_value()) return Error(EINVAL, "Use of backing file requires explicit backing format");
  return {};
}

Result<void> Conversion::check_compression(const DriverType& type) const {
  if (!request_.compress) return {};
  if (!type.supports_compression()) return Error(ENOTSUP, "Compression not supported for this file format");
  if (!create_options_.has_value()) return {};
  if (create_options_->boolean("encryption") || create_options_->text("encrypt.format").has_value()) {
    return Error(ENOTSUP, "Compression and encryption not supported at the same time");
  }
  if (create_options_->text("preallocation").value_or("off") != "off") {
    return Error(ENOTSUP, "Compression and preallocation not supported at the same time");
  }
  return {};
}

/// The locks of the sources keep us from overwriting one of them, but with -U there are none.
Result<void> Conversion::check_not_a_source() const {
  if (!request_.image.force_share || request_.target_image_opts) return {};
  const auto identity = find_host_file(request_.target);
  if (!identity.has_value()) return {};
  for (const auto& source : sources_) {
    if (source->chain_has_file(*identity)) {
      return Error(EINVAL, fmt::format("'{}' is the target and also a source", request_.target));
    }
  }
  return {};
}

Result<void> Conversion::create_target() {
  const DriverType& format = *target_type_.format;
  Result<void> created = check_backing_format(context_.registry, *create_options_);
  if (created.ok()) created = create_image(context_.registry, format, request_.target, *create_options_, new_files_);
  if (created.ok()) return {};
  Error error = std::move(created).error();
  if (has_clusters(target_type_)) error = explain_create_error(std::move(error), target_type_);
  return std::move(error)
      .in_file(request_.target)
      .with_context(fmt::format("{}: error while converting {}", request_.target, format.name()));
}

Result<void> Conversion::open_target() {
  OpenFlags flags{.writable = true, .discard_unmap = true, .new_files = &new_files_};
  request_.target_cache.apply_to(flags);
  target_ =
      COIMG_TRY(open_operand(context_, request_.target, request_.target_format, request_.target_image_opts, flags));
  if (request_.skip_create) {
    COIMG_TRY(check_compression(target_->type()));
    if (target_->length() < source_bytes_) return Error(EINVAL, "output file is smaller than input file");
  }
  target_->set_rate_limit(request_.rate_limit, [this] { return stop_signals_.received() != 0; });
  return {};
}

/// The layer of the source that is the target's backing file: what lies below it is the same for both.
const BlockNode* Conversion::find_common_backing() const {
  const BlockNode* const backing = target_->backing();
  if (backing == nullptr || !backing->file_identity().has_value()) return nullptr;
  const BlockNode* layer = sources_.front()->backing();
  while (layer != nullptr && layer->file_identity() != backing->file_identity()) layer = layer->backing();
  return layer;
}

Result<void> Conversion::copy() {
  const bool fresh_and_zero =
      !request_.skip_create && target_->driver().created_reads_as_zeros() && target_->backing() == nullptr;
  const bool by_content = has_backing() && target_->type().shares_with_backing();
  const BlockNode* const common = by_content ? find_common_backing() : nullptr;
  const CopyOptions options{
      .workers = request_.workers,
      .compress = request_.compress,
      .compression_level = request_.compression_level,
      .in_order = !request_.out_of_order,
      .sparse_bytes = request_.sparse_bytes,
      .store_zeros = request_.sparse_bytes == 0,
      .target_is_zero = fresh_and_zero || request_.target_is_zero,
      .target_has_backing = by_content ? common != nullptr : has_backing(),
      .above = common,
      .leave_equal = by_content && request_.sparse_bytes != 0,
      .salvage = request_.salvage,
      .on_progress = part_of_progress(0),
      .should_stop = [this] { return stop_signals_.received() != 0; },
      .on_warning =
          [this](const std::string& text) {
            if (!request_.quiet) context_.console.warning(text);
          },
  };
  std::vector<BlockNode*> sources;
  for (const auto& source : sources_) sources.push_back(source.get());
  COIMG_TRY(co_copy(sources, *target_, options));
  return target_->co_flush().with_context("error while flushing the target");
}

/// Verifying is the second half of the work.
ProgressCallback Conversion::part_of_progress(unsigned part) {
  const unsigned parts = request_.verify ? 2 : 1;
  return [this, part, parts](uint64_t done, uint64_t total) { progress_.update(part * total + done, parts * total); };
}

// --- verifying -------------------------------------------------------------------------------------------------------

Result<void> Conversion::verify() {
  COIMG_TRY(reopen_target());
  const VerifyOptions options{.workers = request_.workers, .on_progress = part_of_progress(1), .should_stop = [this] {
                                return stop_signals_.received() != 0;
                              }};
  std::vector<BlockNode*> sources;
  for (const auto& source : sources_) sources.push_back(source.get());
  const auto difference = COIMG_TRY(co_verify(sources, *target_, options).with_context("error while verifying"));
  if (!difference.has_value()) return {};
  return Error(EIO, fmt::format("Verification failed: '{}' differs from the source at byte {}", request_.target,
                                *difference))
      .in_file(request_.target);
}

/// As those who use the image will: from the file, tables and all. Around the page cache where the file system can do
/// that, so that it is the disk that is asked; the kernel writes what it still has before it reads.
Result<void> Conversion::reopen_target() {
  const Result<void> closed = target_->co_close();
  target_.reset();
  COIMG_TRY(closed);
  for (const bool direct : {true, false}) {
    const OpenFlags flags{.direct = direct, .new_files = &new_files_};
    auto opened = open_operand(context_, request_.target, request_.target_format, request_.target_image_opts, flags);
    if (!opened.ok() && opened.error().errnum() == EINVAL && direct) continue;
    target_ = COIMG_TRY(std::move(opened));
    return {};
  }
  return {};
}

// --- bitmaps ---------------------------------------------------------------------------------------------------------

Result<void> Conversion::check_bitmaps() const {
  if (sources_.size() > 1) return Error(EINVAL, "Copying bitmaps only possible with single source");
  const BlockDriver& source = sources_.front()->driver();
  if (!source.supports_bitmaps()) return Error(ENOTSUP, "Source lacks bitmap support");
  if (request_.skip_broken_bitmaps) return {};
  const std::vector<BitmapInfo> bitmaps = source.bitmaps();
  for (const BitmapInfo& bitmap : std::views::reverse(bitmaps)) {  // the last one is the first that qemu-img names
    if (!bitmap.inconsistent) continue;
    return Error(EINVAL, fmt::format("Cannot copy inconsistent bitmap '{}'", bitmap.name))
        .with_hint(fmt::format("Try --skip-broken-bitmaps, or use '{} bitmap --remove' to delete it\n",
                               context_.program.name));
  }
  return {};
}

/// The target gets all of them or none.
Result<void> Conversion::copy_bitmaps() {
  std::vector<BitmapInfo> bitmaps = sources_.front()->driver().bitmaps();
  for (const BitmapInfo& bitmap : std::views::reverse(bitmaps)) {
    if (!bitmap.inconsistent) continue;
    context_.console.warning(fmt::format("Skipping inconsistent bitmap '{}'", bitmap.name));
  }
  std::erase_if(bitmaps, [](const BitmapInfo& bitmap) { return bitmap.inconsistent; });
  size_t added = 0;
  Result<void> done;
  for (; added < bitmaps.size() && done.ok(); added += done.ok()) done = add_target_bitmap(bitmaps[added]);
  for (size_t i = bitmaps.size(); i-- > 0 && done.ok();) done = fill_target_bitmap(bitmaps[i].name);
  if (done.ok()) return {};
  while (added-- > 0) COIMG_TRY(target_->co_remove_bitmap(bitmaps[added].name));
  return done;
}

Result<void> Conversion::add_target_bitmap(const BitmapInfo& bitmap) {
  return target_->co_add_bitmap(bitmap).with_context(fmt::format("Failed to create bitmap {}", bitmap.name));
}

Result<void> Conversion::fill_target_bitmap(const std::string& name) {
  return target_->co_merge_bitmap(name, *sources_.front(), name)
      .with_context(fmt::format("Failed to populate bitmap {}", name));
}

/// Closes the target before the sources, and all of them whatever happens. Returns the target's error: the sources were
/// only read.
Result<void> Conversion::close_all() {
  Result<void> closed;
  if (target_ != nullptr) closed = target_->co_close();
  for (const auto& source : sources_) static_cast<void>(source->co_close());
  return closed;
}

/// Durable as far as the user wants that of the target. Waiting for the disk costs more than the copy: 1.5 GiB take 0.6
/// s without and 1.5 s with it, where the disk takes 1 GB/s, and most are slower. So "-t unsafe", as in qemu-img what
/// is done when nothing is said, does not wait; a kill leaves nothing incomplete all the same. What was verified has
/// been written already.
Result<void> Conversion::publish_target() {
  return new_files_.publish(/*durable=*/!request_.target_cache.no_flush || request_.verify);
}

}  // namespace coimg
