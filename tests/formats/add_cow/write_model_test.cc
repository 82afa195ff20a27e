// Random operations on an image and on a byte array that stands for what its guest should see.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "block/util/math.h"
#include "coroutine/co_group.h"
#include "coroutine/main_loop.h"
#include "tests/formats/add_cow/image_fixture.h"

namespace coimg::add_cow {
namespace {

/// An image together with its model. Every operation is done to both.
class ModelledImage {
 public:
  ModelledImage(const ImageKind& kind, uint64_t size, uint64_t seed) coroutine_fn : kind_(kind),
                                                                                    first_size_(size),
                                                                                    random_(seed) {
    file_ = std::make_shared<MemDisk>(create_add_cow(kind, size));
    image_file_ = std::make_shared<MemDisk>(kind.qcow2_image ? create_qcow2(size) : poison(size));
    backing_ = backing_content(kind, size, seed);
    content_ = backing_;
    content_.resize(size);
    options_.yields = true;
    open();
  }

  void open() coroutine_fn {
    image_ = open_image(kind_, make_mem_node(file_, options_), make_mem_node(image_file_, options_), backing_);
    ASSERT_NE(image_, nullptr);
    ASSERT_EQ(image_->length(), content_.size());
  }
  void close() coroutine_fn {
    const auto closed = image_->co_close();
    EXPECT_TRUE(closed.ok()) << closed.error().message();
    image_.reset();
  }
  void expect_same() coroutine_fn {
    const Bytes seen = read_all(*image_);
    ASSERT_EQ(seen.size(), content_.size());
    const auto at = std::ranges::mismatch(seen, content_).in1 - seen.begin();
    ASSERT_EQ(static_cast<size_t>(at), seen.size()) << "the first difference";
  }
  void expect_sound_when_closed() coroutine_fn {
    close();
    open();
    expect_same();
    expect_sound(*image_);
  }
  /// What block status says is true.
  void expect_status_agrees() coroutine_fn {
    for (uint64_t offset = 0; offset < size();) {
      const auto found = image_->co_chain_status(offset, size() - offset);
      ASSERT_TRUE(found.ok()) << found.error().message();
      if (found->status.zero) {
        for (uint64_t i = 0; i < found->status.bytes; ++i) ASSERT_EQ(content_[offset + i], std::byte{0}) << offset + i;
      }
      offset += found->status.bytes;
    }
  }
  /// All that the guest sees is in the image file when its backing file is given up.
  void complete() coroutine_fn {
    const auto changed = image_->co_change_backing_file("", "");
    ASSERT_TRUE(changed.ok()) << changed.error().message();
    if (!kind_.qcow2_image) {
      ASSERT_EQ(image_file_->bytes, content_) << "the image file is no raw image of the disk";
    }
    backing_.clear();
    close();
    open();
    expect_same();
    EXPECT_EQ(file_->bytes[offsetof(DiskHeader, compatible_features)], std::byte{kAllAllocated});
  }

  uint64_t pick(uint64_t limit) { return limit ? random_() % limit : 0; }
  uint64_t size() const { return content_.size(); }

  Bytes data(uint64_t bytes) {
    Bytes result(bytes);
    const bool zeros = pick(4) == 0;
    for (std::byte& byte : result) byte = zeros ? std::byte{0} : std::byte(random_());
    return result;
  }

  void write(uint64_t offset, uint64_t bytes) coroutine_fn {
    const Bytes written = data(bytes);
    const auto result = image_->co_pwrite(offset, written);
    ASSERT_TRUE(result.ok()) << result.error().message();
    std::ranges::copy(written, content_.begin() + static_cast<ptrdiff_t>(offset));
  }
  void write_zeroes(uint64_t offset, uint64_t bytes) coroutine_fn {
    ZeroOptions options;
    options.may_unmap = pick(2);
    const auto result = image_->co_pwrite_zeroes(offset, bytes, options);
    ASSERT_TRUE(result.ok()) << result.error().message();
    std::fill_n(content_.begin() + static_cast<ptrdiff_t>(offset), bytes, std::byte{0});
  }
  /// What was discarded is as before or zeros.
  void discard(uint64_t offset, uint64_t bytes) coroutine_fn {
    ASSERT_TRUE(image_->co_pdiscard(offset, bytes).ok());
    Bytes seen(bytes);
    ASSERT_TRUE(image_->co_pread(offset, seen).ok());
    for (uint64_t i = 0; i < bytes; ++i) {
      ASSERT_TRUE(seen[i] == content_[offset + i] || seen[i] == std::byte{0}) << "at " << offset + i;
    }
    std::ranges::copy(seen, content_.begin() + static_cast<ptrdiff_t>(offset));
  }
  void read(uint64_t offset, uint64_t bytes) coroutine_fn {
    Bytes seen(bytes);
    const auto result = image_->co_pread(offset, seen);
    ASSERT_TRUE(result.ok()) << result.error().message();
    ASSERT_TRUE(std::equal(seen.begin(), seen.end(), content_.begin() + static_cast<ptrdiff_t>(offset)))
        << "reading " << bytes << " bytes at " << offset;
  }
  void resize(uint64_t new_size) coroutine_fn {
    const auto result = image_->co_truncate(new_size);
    ASSERT_TRUE(result.ok()) << result.error().message();
    content_.resize(new_size);
  }

  void random_step() coroutine_fn {
    const uint64_t offset = pick(size());
    const uint64_t largest = std::min(size() - offset, pick(3) ? kind_.cluster_size * 3 : size());
    const uint64_t bytes = 1 + pick(largest);
    const uint64_t cluster = align_down(offset, kind_.cluster_size);
    switch (pick(16)) {
      case 0 ... 4:
        return write(offset, bytes);
      case 5 ... 6:
        return write(cluster, std::min(align_up(bytes, kind_.cluster_size), size() - cluster));
      case 7 ... 8:
        return write_zeroes(offset, bytes);
      case 9 ... 10:
        return discard(offset, bytes);
      case 11:
        ASSERT_TRUE(image_->co_flush().ok());
        return;
      case 12:
        if (pick(2) == 0) resize(512 * (1 + pick(first_size_ / 256)));  // up to twice as large
        return;
      case 13:
        return expect_status_agrees();
      default:
        return read(offset, bytes);
    }
  }

 private:
  const ImageKind kind_;
  const uint64_t first_size_;
  std::mt19937_64 random_;
  std::shared_ptr<MemDisk> file_, image_file_;
  Bytes backing_, content_;
  MemOptions options_;
  std::unique_ptr<BlockNode> image_;
};

class AddCowModel : public testing::TestWithParam<ImageKind> {
 protected:
  uint64_t image_size() const { return std::max(GetParam().cluster_size * 7, 200 * kKiB) + 512 * 3; }
};

TEST_P(AddCowModel, OneAfterTheOther) {
  const uint64_t seed = test_seed();
  SCOPED_TRACE(testing::Message() << "COIMG_TEST_SEED=" << seed);
  run_in_main_loop([&]() coroutine_fn {
    ModelledImage image(GetParam(), image_size(), seed);
    const int steps = GetParam().cluster_size > 1000000 ? 40 : 250;
    for (int step = 0; step < steps && !HasFailure(); ++step) {
      SCOPED_TRACE(testing::Message() << "step " << step);
      image.random_step();
      if (step % 50 == 49) image.expect_sound_when_closed();
    }
    if (!HasFatalFailure()) image.expect_same();
    if (!HasFatalFailure()) image.complete();
    if (!HasFatalFailure()) image.random_step();
    image.close();
  });
}

// Several coroutines write, each its own bytes, but of the same clusters.
TEST_P(AddCowModel, ManyAtOnce) {
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
            switch (image.pick(5)) {
              case 0:
                image.write_zeroes(offset, bytes);
                break;
              case 1:
                image.read(offset, bytes);
                break;
              default:
                image.write(offset, bytes);
            }
          }
        });
      }
      group.wait_all();
      if (!HasFatalFailure()) image.expect_sound_when_closed();
    }
    image.close();
  });
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, AddCowModel,
    testing::Values(ImageKind{.cluster_size = 4096, .below = Below::kShort},
                    ImageKind{.cluster_size = 4096, .below = Below::kLong, .cache_size = "1k"},
                    ImageKind{.cluster_size = 4096, .below = Below::kNothing, .qcow2_image = true},
                    ImageKind{.cluster_size = 16384, .below = Below::kLong, .qcow2_image = true},
                    ImageKind{.cluster_size = 65536, .below = Below::kShort}, ImageKind{.below = Below::kNothing},
                    ImageKind{.below = Below::kLong}, ImageKind{.cluster_size = 524288, .below = Below::kShort},
                    ImageKind{.cluster_size = 2097152, .below = Below::kLong},
                    ImageKind{.cluster_size = 2097152, .below = Below::kShort, .qcow2_image = true}));

}  // namespace
}  // namespace coimg::add_cow
