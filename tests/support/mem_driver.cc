#include "tests/support/mem_driver.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <iterator>

#include "block/util/math.h"
#include "tests/support/let_others_run.h"

namespace coimg {
namespace {

class MemDriverType final : public DriverType {
 public:
  std::string_view name() const override { return "mem"; }
  DriverKind kind() const override { return DriverKind::kProtocol; }
  Result<std::unique_ptr<BlockDriver>> open(OpenArgs) const coroutine_fn override {
    return Error(ENOTSUP, "memory has no names to open");
  }
};

const MemDriverType mem_driver_type;

}  // namespace

MemDriver::MemDriver(std::shared_ptr<MemDisk> disk, MemOptions options) : disk_(std::move(disk)), options_(options) {}

const DriverType& MemDriver::type() const { return mem_driver_type; }

void MemDriver::check_aligned(uint64_t offset, uint64_t bytes) const {
  const uint64_t alignment = options_.limits.request_alignment;
  EXPECT_TRUE(is_aligned(offset, alignment) && is_aligned(bytes, alignment)) << offset << " + " << bytes;
  EXPECT_GT(bytes, 0u);
}

void MemDriver::check_iov(const IoVector& iov) const {
  EXPECT_LE(iov.size(), options_.limits.max_transfer);
  for (const iovec& piece : iov.pieces()) {
    EXPECT_TRUE(is_aligned(reinterpret_cast<uintptr_t>(piece.iov_base), options_.limits.memory_alignment));
    EXPECT_TRUE(is_aligned(piece.iov_len, options_.limits.memory_alignment));
  }
}

void MemDriver::maybe_yield() const {
  if (options_.yields) let_others_run(1);
}

Result<void> MemDriver::grow_to(uint64_t length) {
  if (length > options_.max_bytes) return Error::from_errno(ENOSPC);
  if (length > disk_->bytes.size()) disk_->bytes.resize(length);
  return {};
}

Result<void> MemDriver::preadv(uint64_t offset, const IoVector& iov) {
  if (disk_->bad_byte && offset <= *disk_->bad_byte && *disk_->bad_byte < offset + iov.size()) {
    return Error::from_errno(EIO);
  }
  ++counters_.reads;
  counters_.bytes_read += iov.size();
  check_aligned(offset, iov.size());
  check_iov(iov);
  maybe_yield();
  const std::span<const std::byte> stored(disk_->bytes);
  const uint64_t start = std::min<uint64_t>(offset, stored.size());
  const uint64_t present = std::min<uint64_t>(iov.size(), stored.size() - start);
  iov.copy_from(0, stored.subspan(start, present));
  iov.fill(present, iov.size() - present, std::byte{0});
  maybe_yield();
  return {};
}

Result<void> MemDriver::pwritev(uint64_t offset, const IoVector& iov, const WriteOptions&) {
  ++counters_.writes;
  counters_.bytes_written += iov.size();
  check_aligned(offset, iov.size());
  check_iov(iov);
  maybe_yield();
  COIMG_TRY(grow_to(offset + iov.size()));
  iov.copy_to(0, std::span(disk_->bytes).subspan(offset, iov.size()));
  maybe_yield();
  return {};
}

Result<void> MemDriver::pwrite_zeroes(uint64_t offset, uint64_t bytes, const ZeroOptions&) {
  if (!options_.supports_zeroes) return Error::from_errno(ENOTSUP);
  ++counters_.zeroes;
  check_aligned(offset, bytes);
  maybe_yield();
  COIMG_TRY(grow_to(offset + bytes));
  std::memset(disk_->bytes.data() + offset, 0, bytes);
  maybe_yield();
  return {};
}

Result<void> MemDriver::reserve(std::span<const ByteRange> ranges) {
  maybe_yield();
  std::ranges::copy_if(ranges, std::back_inserter(reserved_), [this](const ByteRange& range) {
    return range.offset + range.bytes <= disk_->bytes.size() &&
           std::ranges::all_of(std::span(disk_->bytes).subspan(range.offset, range.bytes),
                               [](std::byte byte) { return byte == std::byte{0}; });
  });
  return {};
}

Result<void> MemDriver::pdiscard(uint64_t offset, uint64_t bytes) {
  ++counters_.discards;
  maybe_yield();
  const uint64_t start = std::min<uint64_t>(offset, disk_->bytes.size());
  std::memset(disk_->bytes.data() + start, 0, std::min<uint64_t>(bytes, disk_->bytes.size() - start));
  return {};
}

Result<void> MemDriver::flush() {
  ++counters_.flushes;
  maybe_yield();
  return {};
}

Result<BlockStatus> MemDriver::block_status(uint64_t offset, uint64_t bytes, bool) {
  ++counters_.statuses;
  maybe_yield();
  const std::span<const std::byte> stored(disk_->bytes);
  EXPECT_TRUE(bytes > 0 && range_within(offset, bytes, stored.size())) << offset << " + " << bytes;
  auto hole_at = [&](uint64_t position) {
    const uint64_t block = align_down(position, kHoleBytes);
    return is_zero(stored.subspan(block, std::min<uint64_t>(kHoleBytes, stored.size() - block)));
  };
  BlockStatus status{.allocated = true, .host_offset = offset};
  status.zero = hole_at(offset);
  status.data = !status.zero;
  uint64_t end = align_down(offset, kHoleBytes) + kHoleBytes;
  while (end < offset + bytes && hole_at(end) == status.zero) end += kHoleBytes;
  status.bytes = std::min(end, offset + bytes) - offset;
  return status;
}

Result<void> MemDriver::truncate(uint64_t new_length, Preallocation) {
  ++counters_.truncates;
  maybe_yield();
  if (new_length > options_.max_bytes) return Error::from_errno(ENOSPC);
  disk_->bytes.resize(new_length);
  return {};
}

std::unique_ptr<BlockNode> make_mem_node(std::vector<std::byte> content) {
  return make_mem_node(std::make_shared<MemDisk>(std::move(content)));
}

std::unique_ptr<BlockNode> make_mem_node(std::shared_ptr<MemDisk> disk, MemOptions options, OpenFlags flags) {
  auto node = std::make_unique<BlockNode>("mem", flags);
  node->set_driver(std::make_unique<MemDriver>(std::move(disk), options));
  return node;
}

MemDriver& mem_driver(const BlockNode& node) { return dynamic_cast<MemDriver&>(node.driver()); }

namespace {

class GivenDataFile final : public DataFileOpener {
 public:
  GivenDataFile(BlockNode& image, std::unique_ptr<BlockNode> data) : image_(image), data_(std::move(data)) {}
  ~GivenDataFile() override { EXPECT_EQ(data_, nullptr) << "the data file was not asked for"; }
  [[nodiscard]] bool named_by_user() const override { return false; }
  Result<BlockNode*> open(const std::string& stored_name) coroutine_fn override {
    if (!data_) return Error(ENOENT, stored_name);
    image_.set_data_file(std::move(data_));
    return image_.data_file();
  }
  [[nodiscard]] bool knows_format(std::string_view name) const override { return name == "raw" || name == "qcow2"; }
  Result<BlockNode*> open_image(const std::string& stored_name, const std::string&) coroutine_fn override {
    return open(stored_name);
  }

 private:
  BlockNode& image_;
  std::unique_ptr<BlockNode> data_;
};

}  // namespace

Result<std::unique_ptr<BlockNode>> open_format(const DriverType& type, std::unique_ptr<BlockNode> file, OpenFlags flags,
                                               Options options, std::unique_ptr<BlockNode> data) {
  auto node = std::make_unique<BlockNode>(file->filename(), flags);
  node->set_file(std::move(file));
  GivenDataFile data_file(*node, std::move(data));
  auto driver = type.open({.node = node.get(),
                           .file = node->file(),
                           .filename = node->filename(),
                           .options = &options,
                           .flags = flags,
                           .permissions = {},
                           .data_file = &data_file});
  if (!driver.ok()) {
    auto closed = node->co_close();
    EXPECT_TRUE(closed.ok());
    return std::move(driver).error();
  }
  node->set_driver(*std::move(driver));
  return node;
}

std::vector<std::byte> read_all(BlockNode& node) {
  std::vector<std::byte> bytes(node.length());
  if (bytes.empty()) return bytes;
  auto read = node.co_pread(0, bytes);
  EXPECT_TRUE(read.ok()) << (read.ok() ? "" : read.error().message());
  return bytes;
}

std::vector<std::byte> pattern(size_t bytes, uint64_t seed) {
  std::vector<std::byte> result(bytes);
  uint64_t state = seed * 0x9E3779B97F4A7C15 + 1;
  for (std::byte& byte : result) {
    state = state * 6364136223846793005 + 1442695040888963407;
    byte = static_cast<std::byte>((state >> 56) % 255 + 1);
  }
  return result;
}

}  // namespace coimg
