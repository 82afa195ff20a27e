// AddCow: an open add-cow image.
//
// An add-cow file holds no guest data: a header and one bit a cluster. A cluster whose bit is set is in the image file,
// at the guest's own offset; the others are the backing file's. When all are set, the image file alone is the disk, and
// that is what the all-allocated bit in the header says.
//
// Which file does what: header parses and encodes the header; add_cow.cc opens, flushes and closes; cow_bitmap keeps
// the bits; read.cc reads and tells where data lies; write.cc writes, zeroes and discards; resize.cc changes the size;
// backing.cc changes what lies below; amend.cc changes the image file's name; create.cc makes new images; check.cc
// finds and mends damage; info.cc describes.
//
// Format: add-cow; the specification's sections are named in each file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "block/driver.h"
#include "block/node.h"
#include "block/request_tracker.h"
#include "formats/add_cow/cow_bitmap.h"
#include "formats/add_cow/header.h"

namespace coimg::add_cow {

/// An open add-cow image. Every public call comes from one AioContext.
///
/// Locks, in the order in which they are taken:
///   in_flight_   guest ranges in which clusters are being allocated: exclusively by writes, shared by zeroing. Reads
///   and writes of clusters that
///                are allocated do not wait for it: a bit that is set stays set.
///   CowBitmap's own locks, which are not held over guest data I/O.
class AddCow final : public BlockDriver {
 public:
  /// Opens the image in `args.file` and its image file. Errors: the faults of the header; those of the image file;
  /// nothing is written. To be checked (flags.check), an image is opened whatever is wrong with it.
  static Result<std::unique_ptr<AddCow>> open(const DriverType& type, DriverType::OpenArgs args) coroutine_fn;
  ~AddCow() override;

  // BlockDriver; contracts there.
  const DriverType& type() const override { return type_; }
  uint64_t length() const override { return virtual_size_; }
  BlockLimits limits() const override;
  Result<void> close() coroutine_fn override;
  Result<void> preadv(uint64_t offset, const IoVector& iov) coroutine_fn override;
  Result<void> pwritev(uint64_t offset, const IoVector& iov, const WriteOptions& options) coroutine_fn override;
  Result<void> pwrite_zeroes(uint64_t offset, uint64_t bytes, const ZeroOptions& options) coroutine_fn override;
  Result<void> pdiscard(uint64_t offset, uint64_t bytes) coroutine_fn override;
  Result<void> flush() coroutine_fn override;
  Result<BlockStatus> block_status(uint64_t offset, uint64_t bytes, bool want_zero) coroutine_fn override;
  Result<void> truncate(uint64_t new_length, Preallocation preallocation) coroutine_fn override;
  Result<ImageInfo> info() coroutine_fn override;
  Result<CheckResult> check(const CheckOptions& options) coroutine_fn override;
  Result<void> change_backing_file(const std::string& name, const std::string& format) coroutine_fn override;
  Result<void> check_backing_change(const std::string& name, const std::string& format) const override;
  Result<void> make_empty() coroutine_fn override;
  Result<void> amend(const CreateOptions& options, const ProgressCallback& on_progress) coroutine_fn override;

 private:
  friend class Checker;

  AddCow(const DriverType& type, DriverType::OpenArgs args, ParsedHeader parsed);

  // --- add_cow.cc: life cycle ----------------------------------------------------------------------------------------
  Result<void> open_image_file(DriverType::OpenArgs& args) coroutine_fn;
  [[nodiscard]] Result<void> check_bitmap_is_whole() const;
  /// Sets the all-allocated bit once no cluster is left without; what the bits say is durable before.
  Result<void> note_if_complete() coroutine_fn;
  Result<void> store_compatible_features(uint64_t features) coroutine_fn;
  [[nodiscard]] BlockNode* backing() const { return node_.backing(); }
  [[nodiscard]] uint64_t clusters() const { return geometry_.clusters(virtual_size_); }

  // --- read.cc -------------------------------------------------------------------------------------------------------
  /// A range of the disk with one answer.
  struct Extent {
    bool in_image = false;
    uint64_t bytes = 0;
  };
  /// What begins at `offset` and is at most `bytes` long; perhaps not all of what is alike.
  Result<Extent> map(uint64_t offset, uint64_t bytes) coroutine_fn;
  /// Reads what is not in the image file.
  Result<void> read_backing(uint64_t offset, const IoVector& iov) coroutine_fn;
  /// What lies below the image, and is it known to be zeros.
  struct BackingExtent {
    bool zero = false;
    uint64_t bytes = 0;
  };
  Result<BackingExtent> map_backing(uint64_t offset, uint64_t bytes) coroutine_fn;

  // --- write.cc ------------------------------------------------------------------------------------------------------
  Result<void> write_allocating(uint64_t offset, const IoVector& iov) coroutine_fn;
  Result<void> copy_on_write(uint64_t offset, const IoVector& iov) coroutine_fn;
  Result<void> add_kept_part(uint64_t offset, std::span<std::byte> memory, IoVector& iov) coroutine_fn;
  Result<void> zero_unallocated(uint64_t offset, uint64_t bytes, const ZeroOptions& options) coroutine_fn;
  /// Sets the bits of [offset, offset + bytes), which is whole clusters but for the end of the disk.
  Result<void> note_allocated(uint64_t offset, uint64_t bytes) coroutine_fn;
  [[nodiscard]] bool is_whole_clusters(uint64_t offset, uint64_t bytes) const;
  [[nodiscard]] uint64_t cluster_end(uint64_t offset) const;

  // --- resize.cc -----------------------------------------------------------------------------------------------------
  Result<void> grow(uint64_t new_length, Preallocation preallocation) coroutine_fn;
  Result<void> shrink(uint64_t new_length) coroutine_fn;
  Result<void> hide_backing_behind_end(uint64_t new_length) coroutine_fn;
  Result<void> allocate_last_cluster() coroutine_fn;

  // --- backing.cc ----------------------------------------------------------------------------------------------------
  /// The header with another backing file. Errors: it has no room for the name; the file is a part of the image.
  [[nodiscard]] Result<Header> header_with_backing(const std::string& name, const std::string& format) const;
  Result<void> complete_without_backing() coroutine_fn;
  /// Stores another header, of which the names have been laid out beside the ones in use.
  Result<void> replace_header(Header header) coroutine_fn;
  Result<void> store_name(const HeaderRange& place, const std::string& name) coroutine_fn;
  Result<void> wipe_name(const HeaderRange& place) coroutine_fn;
  /// Puts a name where the header in use has room. Errors: ENOSPC.
  [[nodiscard]] Result<HeaderRange> place_name(const std::string& name) const;

  // Constant after open.
  const DriverType& type_;
  BlockNode& node_;
  BlockNode& file_;
  BlockNode* image_ = nullptr;  ///< null only with faults
  const std::string filename_;
  const OpenFlags flags_;
  const Geometry geometry_;
  std::vector<Error> faults_;  ///< only of images that were opened to be checked
  std::unique_ptr<CowBitmap> bitmap_;

  RequestTracker in_flight_;

  // Changed by calls beside which there are no others; all_allocated_ by flush(), once.
  Header header_;
  uint64_t virtual_size_ = 0;  ///< whole sectors
  bool all_allocated_ = false;

  bool has_allocated_ = false;  ///< a bit was set since the last look for clusters without one
  uint64_t first_gap_ = 0;      ///< all clusters before this one have their bit set
};

/// Reads as much of the header as there is.
Result<std::vector<std::byte>> read_header(BlockNode& file) coroutine_fn;

}  // namespace coimg::add_cow
