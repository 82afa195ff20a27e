// The life of an open image: open, flush, close.
//
// Format: add-cow, sections "Validation on open", "Crash consistency", "The all-allocated bit".
#include "formats/add_cow/add_cow.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <utility>

#include "block/util/math.h"

namespace coimg::add_cow {

Result<std::vector<std::byte>> read_header(BlockNode& file) {
  const auto read = [&file](uint64_t most) coroutine_fn -> Result<std::vector<std::byte>> {
    std::vector<std::byte> bytes(std::min(most, file.exact_length()));
    if (!bytes.empty()) COIMG_TRY(file.co_pread(0, bytes).with_context("reading the add-cow header"));
    return bytes;
  };
  auto start = COIMG_TRY(read(kMinHeaderBytes));
  const uint64_t wanted = header_bytes_of(start);
  return wanted <= start.size() ? std::move(start) : read(wanted);
}

Result<std::unique_ptr<AddCow>> AddCow::open(const DriverType& type, DriverType::OpenArgs args) {
  assert(args.node && args.file && args.data_file);
  const std::vector<std::byte> bytes = COIMG_TRY(read_header(*args.file));
  ParsedHeader parsed = parse_header(bytes, args.file->exact_length(),
                                     [&args](std::string_view name) { return args.data_file->knows_format(name); });
  if (!parsed.faults.empty() && !args.flags.check) return std::move(parsed.faults.front());

  std::unique_ptr<AddCow> image(new AddCow(type, args, std::move(parsed)));
  if (!image->faults_.empty()) return image;
  // The names can be shown without their files; the size cannot.
  const bool may_open = args.data_file->named_by_user() || args.data_file->follows_stored_names();
  if (args.flags.no_io && !may_open) return image;
  auto opened = image->open_image_file(args);
  if (opened.ok()) return image;
  if (!args.flags.check) return std::move(opened).error();
  image->faults_.push_back(std::move(opened).error());
  return image;
}

AddCow::AddCow(const DriverType& type, DriverType::OpenArgs args, ParsedHeader parsed)
    : type_(type),
      node_(*args.node),
      file_(*args.file),
      filename_(std::move(args.filename)),
      flags_(args.flags),
      geometry_(parsed.header.geometry),
      faults_(std::move(parsed.faults)),
      header_(std::move(parsed.header)),
      all_allocated_(header_.all_allocated()) {}

AddCow::~AddCow() = default;

Result<void> AddCow::open_image_file(DriverType::OpenArgs& args) {
  BitmapMemory memory;
  if (args.options) {
    if (const auto bytes = COIMG_TRY(args.options->take_size("cache-size"))) memory = BitmapMemory::of(*bytes);
  }
  image_ = COIMG_TRY(args.data_file->open_image(header_.image_file, header_.image_format));
  virtual_size_ = align_down(image_->exact_length(), kSectorSize);
  if (!flags_.check) COIMG_TRY(check_bitmap_is_whole());
  bitmap_ = std::make_unique<CowBitmap>(file_, *image_, HostOffset(geometry_.header_bytes()), clusters(), memory);
  return {};
}

/// What is missing would silently show old backing data for clusters that were written.
Result<void> AddCow::check_bitmap_is_whole() const {
  const uint64_t needed = geometry_.header_bytes() + geometry_.bitmap_bytes(virtual_size_);
  if (all_allocated_ || file_.exact_length() >= needed) return {};
  return Error(EUCLEAN, fmt::format("the COW bitmap is cut short: the file has {} bytes, a disk of {} bytes needs {}; "
                                    "see 'coimg check'",
                                    file_.exact_length(), virtual_size_, needed))
      .at("add-cow bitmap", geometry_.header_bytes());
}

BlockLimits AddCow::limits() const {
  BlockLimits limits;
  limits.zero_alignment = geometry_.cluster_bytes();
  if (image_) limits.discard_alignment = image_->limits().discard_alignment;
  return limits;
}

/// The order is what keeps a crash from showing clusters that were not written: data, flush, bits, flush. Only then may
/// the header say that there is nothing else.
///
/// Crash: a bit that is set on disk stands for data that is.
Result<void> AddCow::flush() {
  if (!image_) return {};
  if (all_allocated_ && !bitmap_->dirty()) {
    COIMG_TRY(image_->co_flush());
    return file_.co_flush();
  }
  COIMG_TRY(bitmap_->store());
  COIMG_TRY(file_.co_flush());
  return note_if_complete();
}

/// Looks for the first cluster without a bit only from where the last one was found, so that all looks together read
/// the bitmap once.
Result<void> AddCow::note_if_complete() {
  if (all_allocated_ || !has_allocated_) return {};
  while (first_gap_ < clusters()) {
    const auto run = COIMG_TRY(bitmap_->find_run(GuestCluster(first_gap_), clusters() - first_gap_));
    if (!run.set) return {};
    first_gap_ += run.clusters;
  }
  if (bitmap_->dirty()) return {};  // bits that were set meanwhile; the next flush has them
  COIMG_TRY(file_.co_flush());      // or that another flush has just written
  COIMG_TRY(store_compatible_features(header_.compatible_features | kAllAllocated));
  all_allocated_ = true;
  return {};
}

Result<void> AddCow::store_compatible_features(uint64_t features) {
  const le64 stored = features;
  COIMG_TRY(file_.co_pwrite(offsetof(DiskHeader, compatible_features), std::as_bytes(std::span(&stored, 1)))
                .with_context("writing the add-cow header"));
  COIMG_TRY(file_.co_flush());
  header_.compatible_features = features;
  return {};
}

/// The block layer has flushed, unless flushes are to be dropped.
Result<void> AddCow::close() {
  if (!flags_.writable || !image_ || !has_allocated_) return {};
  return flush();
}

}  // namespace coimg::add_cow
