// The power goes at every point of a random run. Whatever of the unflushed writes has reached the two files, the image
// must open, be free of corruptions, and each byte must be what the last flush left or what was written since. The
// image file is full of garbage before: a bit that got ahead of its data would show it.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <span>

#include "block/util/math.h"
#include "tests/crash/random_runs.h"
#include "tests/formats/add_cow/image_fixture.h"

namespace coimg::add_cow {
namespace {

using crash::after_loss, crash::power_losses_at;

class CrashRun {
 public:
  CrashRun(const ImageKind& kind, uint64_t seed) coroutine_fn : kind_(kind), random_(seed) {
    const uint64_t size = kind.cluster_size * 24 + 1024;
    backing_ = backing_content(kind, size, seed);
    content_ = backing_;
    content_.resize(size);
    auto file = make_fault_node(create_add_cow(kind, size));
    auto image = make_fault_node(kind.qcow2_image ? create_qcow2(size) : poison(size));
    image_file_ = image.get();
    image_ = open_image(kind, std::move(file), std::move(image), backing_);
    record(true);
  }

  void step() coroutine_fn {
    const uint64_t offset = pick(content_.size());
    const uint64_t bytes = 1 + pick(std::min(content_.size() - offset, kind_.cluster_size * 4));
    switch (pick(11)) {
      case 0 ... 5:
        write(offset, bytes);
        break;
      case 6 ... 7: {
        ZeroOptions options;
        options.may_unmap = pick(2);
        ASSERT_TRUE(image_->co_pwrite_zeroes(offset, bytes, options).ok());
        change(offset, Bytes(bytes));
        break;
      }
      case 8: {
        const uint64_t size = align_up(kind_.cluster_size / 2 * (1 + pick(60)), kSectorSize);
        const bool changes = size != content_.size();
        ASSERT_TRUE(image_->co_truncate(size).ok());
        content_.resize(size);
        return record(changes);  // it is durable when it returns, and so is what was before
      }
      default:
        ASSERT_TRUE(image_->co_flush().ok());
        return record(true);
    }
    record(false);
  }

  /// Cuts the power `ios` I/Os after the begin, in up to `most` ways. Returns in how many.
  size_t crash_at(uint64_t ios, size_t most, uint64_t seed) coroutine_fn {
    const uint64_t time = history_.time_after(ios);
    const auto losses = power_losses_at(*image_->file(), time, most, seed);
    const auto image_losses = power_losses_at(*image_file_, time, most, ~seed);
    const size_t ways = std::max(losses.size(), image_losses.size());
    for (size_t way = 0; way < ways && !testing::Test::HasFailure(); ++way) {
      const PowerLoss& loss = losses[way % losses.size()];
      const PowerLoss& image_loss = image_losses[way % image_losses.size()];
      SCOPED_TRACE(loss.what + "; image file: " + image_loss.what);
      crash(time, loss, image_loss);
    }
    return ways;
  }

  uint64_t ios() const { return history_.ios(); }
  bool usable() const { return image_ != nullptr; }
  void close() coroutine_fn { EXPECT_TRUE(image_->co_close().ok()); }

 private:
  uint64_t pick(uint64_t limit) { return random_() % limit; }

  void crash(uint64_t time, const PowerLoss& loss, const PowerLoss& image_loss) coroutine_fn {
    crash::count_image();
    const auto after = open_image(kind_, make_mem_node(after_loss(*image_->file(), loss)),
                                  make_mem_node(after_loss(*image_file_, image_loss)), backing_);
    ASSERT_NE(after, nullptr);
    crash::expect_allowed(read_all(*after), history_.possible_at(time));
    ASSERT_TRUE(after->co_truncate(after->length() + kind_.cluster_size * 3).ok());
    expect_zeros_at_end(*after);
    expect_sound(*after);
    ASSERT_TRUE(after->co_close().ok());
  }

  void write(uint64_t offset, uint64_t bytes) coroutine_fn {
    Bytes data(bytes);
    for (std::byte& byte : data) byte = std::byte(random_());
    ASSERT_TRUE(image_->co_pwrite(offset, data).ok());
    change(offset, data);
  }
  void change(uint64_t offset, const Bytes& data) {
    std::ranges::copy(data, content_.begin() + static_cast<ptrdiff_t>(offset));
  }
  void record(bool flush) { history_.record({.content = content_, .flush = flush}); }

  /// Neither the backing file nor bits that a crash has left behind the end may show when the disk grows.
  void expect_zeros_at_end(BlockNode& image) const coroutine_fn {
    Bytes end(kind_.cluster_size * 3);
    ASSERT_TRUE(image.co_pread(image.length() - end.size(), end).ok());
    ASSERT_EQ(end, Bytes(end.size()));
  }

  const ImageKind kind_;
  std::mt19937_64 random_;
  Bytes backing_, content_;
  crash::History<> history_;
  const BlockNode* image_file_ = nullptr;
  std::unique_ptr<BlockNode> image_;
};

class AddCowCrash : public testing::TestWithParam<ImageKind> {};

TEST_P(AddCowCrash, LeavesASoundImageWithAllThatWasFlushed) { crash::cut_power_everywhere<CrashRun>(GetParam()); }

INSTANTIATE_TEST_SUITE_P(Kinds, AddCowCrash,
                         testing::Values(ImageKind{.cluster_size = 4096, .below = Below::kShort},
                                         ImageKind{.cluster_size = 4096, .below = Below::kLong},
                                         ImageKind{.cluster_size = 4096, .below = Below::kNothing},
                                         ImageKind{.cluster_size = 16384, .below = Below::kLong},
                                         ImageKind{.cluster_size = 4096, .below = Below::kShort, .qcow2_image = true},
                                         ImageKind{.cluster_size = 8192, .below = Below::kLong, .qcow2_image = true}));

}  // namespace
}  // namespace coimg::add_cow
