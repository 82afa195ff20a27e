// Many requests in flight at once that overlap one another, while I/Os fail underneath. Afterwards each byte is what
// one of the last requests that wrote to it has left there: nothing of the backing file comes back, and no copied part
// of a cluster covers what somebody else wrote to it.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "coroutine/co_group.h"
#include "coroutine/main_loop.h"
#include "tests/formats/add_cow/image_fixture.h"

namespace coimg::add_cow {
namespace {

class ContestedImage {
 public:
  ContestedImage(const ImageKind& kind, uint64_t seed) coroutine_fn : kind_(kind), random_(seed) {
    const uint64_t size = kind.cluster_size * 11 + 512 * 5;
    file_disk_ = std::make_shared<MemDisk>(create_add_cow(kind, size));
    image_disk_ = std::make_shared<MemDisk>(kind.qcow2_image ? create_qcow2(size) : poison(size));
    backing_ = backing_content(kind, size, seed);
    content_ = backing_;
    content_.resize(size);
    open();
  }

  void open() coroutine_fn {
    auto file = make_fault_node(file_disk_);
    auto image = make_fault_node(image_disk_);
    file_ = &fault_driver(*file);
    image_file_ = &fault_driver(*image);
    image_ = open_image(kind_, std::move(file), std::move(image), backing_);
    ASSERT_NE(image_, nullptr);
    file_->set_delay_ns(2000);  // others run during each I/O
    image_file_->set_delay_ns(2000);
  }
  void close() coroutine_fn {
    ASSERT_TRUE(image_->co_close().ok());
    image_.reset();
  }
  void reopen() coroutine_fn {
    close();
    open();
    expect_same();
    expect_sound(*image_);
  }
  void expect_same() coroutine_fn { ASSERT_EQ(read_all(*image_), content_); }

  /// Some requests of several coroutines; with `faults`, some of their I/Os fail.
  void round(bool faults) coroutine_fn {
    constexpr unsigned kWorkers = 10, kRequests = 5;
    requests_.clear();
    if (faults) {
      file_->fail_nth_io(1 + pick(8), EIO);
      image_file_->fail_nth_io(1 + pick(60), ENOSPC);
      image_file_->fail_nth_io(1 + pick(60), EIO);
    }
    failed_ = 0;
    CoGroup group;
    for (unsigned worker = 0; worker < kWorkers; ++worker) {
      group.start([this]() coroutine_fn {
        for (unsigned i = 0; i < kRequests; ++i) do_request();
      });
    }
    group.wait_all();
    EXPECT_TRUE(faults || failed_ == 0);
    file_->heal();
    image_file_->heal();
    const auto flushed = image_->co_flush();
    ASSERT_TRUE(flushed.ok()) << flushed.error().message();
    take_over(read_all(*image_));
  }

 private:
  struct Request {
    uint64_t offset, end;
    std::byte value;
    uint64_t begin_time, end_time = UINT64_MAX;
    bool done = false;  ///< did what it was to do

    [[nodiscard]] bool covers(uint64_t at) const { return offset <= at && at < end; }
  };

  uint64_t pick(uint64_t limit) { return random_() % limit; }

  void do_request() coroutine_fn {
    const uint64_t offset = pick(content_.size());
    const uint64_t bytes = 1 + pick(std::min(content_.size() - offset, kind_.cluster_size * (pick(4) ? 1 : 5)));
    switch (pick(10)) {
      case 0:
        return note(image_->co_flush());
      case 1:
        return read(offset, bytes);
      case 2: {
        const size_t index = begin(offset, bytes, std::byte{0});
        note(image_->co_pdiscard(offset, bytes));
        requests_[index].end_time = ++time_;  // it may have done nothing
        return;
      }
      case 3 ... 4: {
        ZeroOptions options;
        options.may_unmap = pick(2);
        const size_t index = begin(offset, bytes, std::byte{0});
        return end(index, image_->co_pwrite_zeroes(offset, bytes, options));
      }
      default: {
        const auto value = std::byte(1 + pick(255));
        const size_t index = begin(offset, bytes, value);
        const Bytes data(bytes, value);
        return end(index, image_->co_pwrite(offset, data));
      }
    }
  }
  size_t begin(uint64_t offset, uint64_t bytes, std::byte value) {
    requests_.push_back({.offset = offset, .end = offset + bytes, .value = value, .begin_time = ++time_});
    return requests_.size() - 1;
  }
  void end(size_t index, const Result<void>& result) {
    requests_[index].end_time = ++time_;
    requests_[index].done = result.ok();
    note(result);
  }
  void note(const Result<void>& result) { failed_ += !result.ok(); }

  /// A read sees what was there when it began, or what was written meanwhile.
  void read(uint64_t offset, uint64_t bytes) coroutine_fn {
    const uint64_t begin_time = ++time_;
    Bytes seen(bytes);
    const auto result = image_->co_pread(offset, seen);
    note(result);
    if (!result.ok()) return;
    for (uint64_t i = 0; i < bytes; ++i) ASSERT_TRUE(may_be(offset + i, seen[i], begin_time)) << offset + i;
  }

  /// Whether a byte could have been read by somebody who began at `time`.
  [[nodiscard]] bool may_be(uint64_t at, std::byte value, uint64_t time) const {
    const auto overwritten = [&](uint64_t end_time) {
      return std::ranges::any_of(requests_, [&](const Request& other) {
        return other.done && other.covers(at) && other.begin_time > end_time && other.end_time < time;
      });
    };
    if (content_[at] == value && !overwritten(0)) return true;
    return std::ranges::any_of(requests_, [&](const Request& request) {
      return request.covers(at) && request.value == value && !overwritten(request.end_time);
    });
  }

  void take_over(const Bytes& seen) {
    ASSERT_EQ(seen.size(), content_.size());
    for (uint64_t at = 0; at < seen.size(); ++at) {
      ASSERT_TRUE(may_be(at, seen[at], UINT64_MAX)) << "byte " << at << " is " << int(seen[at]);
    }
    content_ = seen;
    time_ = 0;
  }

  const ImageKind kind_;
  std::mt19937_64 random_;
  std::shared_ptr<MemDisk> file_disk_, image_disk_;
  Bytes backing_, content_;
  FaultDriver* file_ = nullptr;
  FaultDriver* image_file_ = nullptr;
  std::unique_ptr<BlockNode> image_;
  std::vector<Request> requests_;
  uint64_t time_ = 0;
  unsigned failed_ = 0;
};

class AddCowConcurrency : public testing::TestWithParam<ImageKind> {
 protected:
  void run(bool faults) {
    const uint64_t seed = test_seed();
    SCOPED_TRACE(testing::Message() << "COIMG_TEST_SEED=" << seed);
    run_in_main_loop([&]() coroutine_fn {
      for (uint64_t image_seed = seed; image_seed < seed + 3 && !HasFailure(); ++image_seed) {
        ContestedImage image(GetParam(), image_seed);
        for (int round = 0; round < 8 && !HasFailure(); ++round) {
          SCOPED_TRACE(testing::Message() << "image " << image_seed - seed << ", round " << round);
          image.round(faults && round % 4 != 3);
          if (round % 2 == 1 && !HasFatalFailure()) image.reopen();
        }
        image.close();
      }
    });
  }
};

TEST_P(AddCowConcurrency, OverlappingRequestsLeaveWhatOneOfThemWrote) { run(false); }
TEST_P(AddCowConcurrency, TheyDoSoWhileIosFail) { run(true); }

INSTANTIATE_TEST_SUITE_P(Kinds, AddCowConcurrency,
                         testing::Values(ImageKind{.cluster_size = 4096, .below = Below::kShort},
                                         ImageKind{.cluster_size = 4096, .below = Below::kLong, .cache_size = "1k"},
                                         ImageKind{.cluster_size = 16384, .below = Below::kNothing},
                                         ImageKind{.cluster_size = 8192, .below = Below::kLong, .qcow2_image = true},
                                         ImageKind{.cluster_size = 65536, .below = Below::kShort}));

}  // namespace
}  // namespace coimg::add_cow
