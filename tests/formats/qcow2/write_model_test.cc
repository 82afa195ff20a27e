// Random operations on an image and on a byte array that stands for what its guest should see.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>

#include "block/util/math.h"
#include "coroutine/co_group.h"
#include "coroutine/main_loop.h"
#include "tests/formats/qcow2/image_fixture.h"
#include "tests/formats/qcow2/image_kinds.h"

namespace coimg::qcow2 {
namespace {

using Bytes = std::vector<std::byte>;

/// COIMG_TEST_SEED repeats a run.
uint64_t test_seed() {
  const char* given = std::getenv("COIMG_TEST_SEED");
  return given ? std::strtoull(given, nullptr, 0) : std::random_device()();
}

/// An image together with its model. Every operation is done to both.
class ModelledImage {
 public:
  ModelledImage(const ImageKind& kind, uint64_t size, uint64_t seed) coroutine_fn : kind_(kind),
                                                                                    first_size_(size),
                                                                                    random_(seed) {
    disk_ = create_image(kind, size);
    if (kind.data_file != DataFile::kNone) data_disk_ = std::make_shared<MemDisk>(Bytes(size));
    if (kind.backing) backing_ = pattern(size - size / 4 + 512, seed);  // ends inside the image
    content_ = backing_;
    content_.resize(size);
    options_.yields = true;
    discard_unmap_ = pick(2) != 0;
    open();
  }

  void open() coroutine_fn {
    image_ = open_image(make_mem_node(disk_, options_), backing_, {.writable = true, .discard_unmap = discard_unmap_},
                        data_disk_ ? make_mem_node(data_disk_, options_) : nullptr);
    ASSERT_NE(image_, nullptr);
    ASSERT_EQ(image_->length(), content_.size());
  }
  void close() coroutine_fn {
    auto closed = image_->co_close();
    EXPECT_TRUE(closed.ok()) << closed.error().message();
    image_.reset();
  }
  void expect_same() coroutine_fn {
    const Bytes seen = read_all(*image_);
    ASSERT_EQ(seen.size(), content_.size());
    const auto at = std::ranges::mismatch(seen, content_).in1 - seen.begin();
    ASSERT_EQ(static_cast<size_t>(at), seen.size()) << "the first difference";
    expect_raw_data_file();
  }
  /// A raw data file is the disk for other programs: byte for byte, and as long.
  void expect_raw_data_file() const {
    if (kind_.data_file != DataFile::kRaw) return;
    ASSERT_EQ(data_disk_->bytes.size(), content_.size()) << "the data file's length";
    ASSERT_TRUE(data_disk_->bytes == content_) << "the data file is no raw image";
  }
  void expect_sound_when_closed() coroutine_fn {
    close();
    open();
    expect_same();
    expect_sound(*image_);
  }

  uint64_t pick(uint64_t limit) { return limit ? random_() % limit : 0; }
  uint64_t size() const { return content_.size(); }
  BlockNode& image() { return *image_; }

  /// Random bytes, bytes that compress well, or zeros.
  Bytes data(uint64_t bytes) {
    Bytes result(bytes);
    const uint64_t kind = pick(4);
    for (std::byte& byte : result) {
      byte = std::byte(kind == 0 ? 0 : kind == 1 ? random_() : 'a' + random_() % 3);
    }
    return result;
  }

  void write(uint64_t offset, uint64_t bytes) coroutine_fn {
    const Bytes written = data(bytes);
    auto result = image_->co_pwrite(offset, written);
    ASSERT_TRUE(result.ok()) << result.error().message();
    std::ranges::copy(written, content_.begin() + static_cast<ptrdiff_t>(offset));
  }
  void write_zeroes(uint64_t offset, uint64_t bytes) coroutine_fn {
    ZeroOptions options;
    options.may_unmap = pick(2);
    auto result = image_->co_pwrite_zeroes(offset, bytes, options);
    ASSERT_TRUE(result.ok()) << result.error().message();
    fill_zeros(offset, offset + bytes);
  }
  void discard(uint64_t offset, uint64_t bytes) coroutine_fn {
    ASSERT_TRUE(image_->co_pdiscard(offset, bytes).ok());
    if (kind_.version2 && kind_.backing) return;
    const uint64_t end = offset + bytes;
    const uint64_t from = align_up(offset, kind_.cluster_size);
    const uint64_t to = end == size() ? end : align_down(end, kind_.cluster_size);
    if (from < to) fill_zeros(from, to);
  }
  void write_compressed(uint64_t offset, uint64_t bytes) coroutine_fn {
    const uint64_t from = align_down(offset, kind_.cluster_size);
    const uint64_t to = std::min(align_up(offset + bytes, kind_.cluster_size), size());
    Bytes written = data(to - from);
    if (data_disk_) return write(offset, bytes);  // cannot have compressed clusters
    auto result = image_->co_pwrite_compressed(from, IoVector(std::span<std::byte>(written)));
    if (!result.ok()) {
      ASSERT_EQ(result.error().errnum(), EIO) << result.error().message();  // something is there already
      return;
    }
    std::ranges::copy(written, content_.begin() + static_cast<ptrdiff_t>(from));
  }
  void read(uint64_t offset, uint64_t bytes) coroutine_fn {
    Bytes seen(bytes);
    auto result = image_->co_pread(offset, seen);
    ASSERT_TRUE(result.ok()) << result.error().message();
    ASSERT_TRUE(std::equal(seen.begin(), seen.end(), content_.begin() + static_cast<ptrdiff_t>(offset)))
        << "reading " << bytes << " bytes at " << offset;
  }
  void resize(uint64_t new_size) coroutine_fn {
    auto result = image_->co_truncate(new_size);
    ASSERT_TRUE(result.ok()) << result.error().message();
    content_.resize(new_size);
  }

  void random_step() coroutine_fn {
    const uint64_t offset = pick(size());
    const uint64_t largest = std::min(size() - offset, pick(3) ? kind_.cluster_size * 3 : size());
    const uint64_t bytes = 1 + pick(largest);
    const uint64_t aligned_offset = align_down(offset, 512);
    switch (pick(16)) {
      case 0 ... 4:
        return write(offset, bytes);
      case 5 ... 6:
        return write(aligned_offset, std::min(align_up(bytes, 4096), size() - aligned_offset));
      case 7 ... 8:
        return write_zeroes(offset, bytes);
      case 9:
        return discard(offset, bytes);
      case 10 ... 11:
        return write_compressed(offset, bytes);
      case 12:
        ASSERT_TRUE(image_->co_flush().ok());
        return;
      case 13:
        if (pick(3) == 0) resize(512 * (1 + pick(first_size_ / 256)));  // up to twice as large
        return;
      default:
        return read(offset, bytes);
    }
  }

 private:
  void fill_zeros(uint64_t from, uint64_t to) {
    std::fill(content_.begin() + static_cast<ptrdiff_t>(from), content_.begin() + static_cast<ptrdiff_t>(to),
              std::byte{0});
  }

  const ImageKind kind_;
  const uint64_t first_size_;
  std::mt19937_64 random_;
  bool discard_unmap_ = false;
  std::shared_ptr<MemDisk> disk_, data_disk_;
  Bytes backing_, content_;
  MemOptions options_;
  std::unique_ptr<BlockNode> image_;
};

class WriteModel : public testing::TestWithParam<ImageKind> {
 protected:
  /// A few L2 tables for small clusters, a few clusters for large ones.
  uint64_t image_size() const { return std::max(GetParam().cluster_size * 5, 200 * kKiB) + 512; }
};

TEST_P(WriteModel, OneAfterTheOther) {
  const uint64_t seed = test_seed();
  SCOPED_TRACE(testing::Message() << "COIMG_TEST_SEED=" << seed);
  run_in_main_loop([&]() coroutine_fn {
    ModelledImage image(GetParam(), image_size(), seed);
    const int steps = GetParam().cluster_size > 1000000 ? 30 : 300;
    for (int step = 0; step < steps && !HasFailure(); ++step) {
      SCOPED_TRACE(testing::Message() << "step " << step);
      image.random_step();
      image.expect_raw_data_file();
      if (step % 50 == 49) image.expect_sound_when_closed();
    }
    if (!HasFatalFailure()) image.expect_same();
    image.close();
  });
}

// Several coroutines write, each its own bytes, but of the same clusters.
TEST_P(WriteModel, ManyAtOnce) {
  const uint64_t seed = test_seed();
  SCOPED_TRACE(testing::Message() << "COIMG_TEST_SEED=" << seed);
  run_in_main_loop([&]() coroutine_fn {
    ModelledImage image(GetParam(), image_size(), seed);
    constexpr uint64_t kWriters = 6;
    const uint64_t stripe = GetParam().cluster_size * 5 / 8;
    for (int round = 0; round < 4 && !HasFailure(); ++round) {
      CoGroup group;
      for (uint64_t writer = 0; writer < kWriters; ++writer) {
        group.start([&, writer]() coroutine_fn {
          for (int step = 0; step < 20 && !HasFailure(); ++step) {
            const uint64_t stripes = (image.size() / stripe + kWriters - 1 - writer) / kWriters;
            if (stripes == 0) return;
            const uint64_t begin = (image.pick(stripes) * kWriters + writer) * stripe;
            const uint64_t offset = begin + image.pick(stripe);
            const uint64_t bytes = 1 + image.pick(begin + stripe - offset);
            if (offset + bytes > image.size()) continue;
            switch (image.pick(6)) {
              case 0 ... 2:
                image.write(offset, bytes);
                break;
              case 3:
                image.write_zeroes(offset, bytes);
                break;
              case 4:
                EXPECT_TRUE(image.image().co_flush().ok());
                break;
              default:
                image.read(offset, bytes);
            }
          }
        });
      }
      group.wait_all();
      image.expect_same();
      image.discard(image.pick(image.size() / 2), image.size() / 2);
      image.expect_sound_when_closed();
    }
    image.close();
  });
}

// Neighbouring compressed writes in flight together, as the copy engine makes them.
TEST_P(WriteModel, CompressedWritesAtOnce) {
  const uint64_t seed = test_seed();
  SCOPED_TRACE(testing::Message() << "COIMG_TEST_SEED=" << seed);
  run_in_main_loop([&]() coroutine_fn {
    const uint64_t cluster_size = GetParam().cluster_size;
    const uint64_t clusters = cluster_size > 1000000 ? 4 : 64;
    ModelledImage image(GetParam(), clusters * cluster_size, seed);
    CoGroup group;
    for (uint64_t cluster = 0; cluster < clusters;) {
      const uint64_t count = std::min(1 + image.pick(5), clusters - cluster);
      group.start([&, cluster, count]()
                      coroutine_fn { image.write_compressed(cluster * cluster_size, count * cluster_size); });
      cluster += count;
    }
    group.wait_all();
    image.expect_same();
    image.expect_sound_when_closed();
    for (int step = 0; step < 20 && !HasFailure(); ++step) image.random_step();
    image.expect_sound_when_closed();
    image.close();
  });
}

INSTANTIATE_TEST_SUITE_P(Kinds, WriteModel, testing::ValuesIn(image_kinds_in_pairs()));

}  // namespace
}  // namespace coimg::qcow2
