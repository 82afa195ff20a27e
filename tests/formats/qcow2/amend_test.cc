// What an image was created with changes; what guests and snapshots see does not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "coroutine/main_loop.h"
#include "tests/formats/qcow2/image_fixture.h"

namespace coimg::qcow2 {
namespace {

using Bytes = std::vector<std::byte>;

Result<void> amend(BlockNode& image, const std::string& name, const std::string& value) coroutine_fn {
  CreateOptions options(qcow2_type().create_options());
  EXPECT_TRUE(options.set(name, value).ok());
  return image.co_amend(options, {});
}

/// An image with data, zeros, holes and snapshots of all that, as far as its refcounts allow.
class AmendedImage {
 public:
  AmendedImage(const ImageKind& kind, uint64_t seed, unsigned snapshots) coroutine_fn : random_(seed) {
    if (kind.backing) backing_ = pattern(kind.cluster_size * 20, seed);
    const uint64_t size = kind.cluster_size * 40;
    image_ = open_image(make_fault_node(create_image(kind, size)), backing_, {.writable = true});
    for (unsigned i = 0; i < snapshots; ++i) {
      change(kind.cluster_size);
      EXPECT_TRUE(image_->co_create_snapshot(std::to_string(i)).ok());
      snapshot_contents_[std::to_string(i)] = read_all(*image_);
      if (i % 2 == 0) {
        EXPECT_TRUE(image_->co_create_snapshot("twin of " + std::to_string(i)).ok());
      }
    }
    change(kind.cluster_size);
    EXPECT_TRUE(image_->co_flush().ok());
    content_ = read_all(*image_);
  }

  /// Random writes, zeroes that keep their place or not, and discards.
  void change(uint64_t cluster_size) coroutine_fn {
    for (int i = 0; i < 12; ++i) {
      const uint64_t offset = random_() % image_->length();
      const uint64_t bytes = 1 + random_() % std::min(image_->length() - offset, cluster_size * 3);
      Result<void> done;
      switch (random_() % 4) {
        case 0: {
          ZeroOptions options;
          options.may_unmap = random_() % 2;
          done = image_->co_pwrite_zeroes(offset, bytes, options);
          break;
        }
        case 1:
          done = image_->co_pdiscard(offset, bytes);
          break;
        default:
          done = image_->co_pwrite(offset, pattern(bytes, random_()));
      }
      EXPECT_TRUE(done.ok()) << done.error().message();
    }
    content_ = read_all(*image_);
  }

  /// Guests and snapshots see what they saw, now and in a copy that is opened anew.
  void expect_same() coroutine_fn {
    EXPECT_TRUE(image_->co_flush().ok());
    EXPECT_EQ(read_all(*image_), content_);
    expect_sound(*image_, /*leaks_allowed=*/true);
    const Bytes bytes = mem_driver(*image_->file()).bytes();
    for (const auto& [name, content] : snapshot_contents_) {
      const auto copy = open_image(make_mem_node(bytes), backing_, {.writable = false});
      ASSERT_NE(copy, nullptr);
      EXPECT_EQ(read_all(*copy), content_);
      ASSERT_TRUE(copy->co_show_snapshot({.id = {}, .name = name}).ok());
      EXPECT_EQ(read_all(*copy), content) << "snapshot " << name;
      EXPECT_TRUE(copy->co_close().ok());
    }
  }

  [[nodiscard]] Header header() const {
    auto parsed = parse_header(mem_driver(*image_->file()).bytes(), {});
    EXPECT_TRUE(parsed.ok());
    return *parsed;
  }

  BlockNode& operator*() { return *image_; }
  BlockNode* operator->() { return image_.get(); }
  FaultDriver& faults() { return fault_driver(*image_->file()); }

 private:
  std::mt19937_64 random_;
  Bytes backing_, content_;
  std::map<std::string, Bytes> snapshot_contents_;
  std::unique_ptr<BlockNode> image_;
};

constexpr unsigned kWidths[] = {1, 2, 4, 8, 16, 32, 64};

/// A chain of all widths, up and down.
TEST(AmendTest, RefcountsTakeEveryWidth) {
  run_in_main_loop([]() coroutine_fn {
    for (const uint64_t cluster_size : {uint64_t{512}, uint64_t{4096}, uint64_t{65536}}) {
      SCOPED_TRACE(cluster_size);
      AmendedImage image({.cluster_size = cluster_size}, cluster_size, 0);
      for (const unsigned from : kWidths) {
        for (const unsigned to : {from, 64u, 1u, from}) {
          const auto amended = amend(*image, "refcount_bits", std::to_string(to));
          ASSERT_TRUE(amended.ok()) << amended.error().message();
          EXPECT_EQ(1u << image.header().refcount_order, to);
          expect_sound(*image);
          image.change(cluster_size);
          image.expect_same();
        }
      }
      EXPECT_TRUE(image->co_close().ok());
    }
  });
}

TEST(AmendTest, AnotherWidthKeepsSnapshots) {
  run_in_main_loop([]() coroutine_fn {
    AmendedImage image({.cluster_size = 1024, .backing = true}, 7, 4);
    for (const unsigned bits : {64u, 4u, 32u, 8u, 16u}) {
      ASSERT_TRUE(amend(*image, "refcount_bits", std::to_string(bits)).ok());
      image.expect_same();
    }
    EXPECT_TRUE(image->co_close().ok());
  });
}

TEST(AmendTest, AWidthThatIsTooSmallIsRefusedAndNothingChanges) {
  run_in_main_loop([]() coroutine_fn {
    AmendedImage image({.cluster_size = 1024}, 7, 3);
    const Bytes before = image.faults().bytes();
    const auto refused = amend(*image, "refcount_bits", "1");
    ASSERT_FALSE(refused.ok());
    EXPECT_THAT(refused.error().message(),
                testing::ContainsRegex("Cannot decrease refcount entry width to 1 bits: Cluster at offset 0x[0-9a-f]+ "
                                       "has a refcount of [0-9]+"));
    EXPECT_EQ(image.faults().bytes(), before);
    image.expect_same();
    EXPECT_TRUE(image->co_close().ok());
  });
}

class Downgrade : public testing::TestWithParam<bool> {};

TEST_P(Downgrade, ExpandsZerosOfTheDiskAndOfSnapshots) {
  run_in_main_loop([]() coroutine_fn {
    for (uint64_t seed = 1; seed < 20 && !HasFailure(); ++seed) {
      SCOPED_TRACE(seed);
      AmendedImage image({.cluster_size = 1024, .backing = GetParam()}, seed, 4);
      const auto amended = amend(*image, "compat", "0.10");
      ASSERT_TRUE(amended.ok()) << amended.error().message();
      EXPECT_EQ(image.header().version, 2u);
      expect_sound(*image);
      image.expect_same();
      image.change(1024);
      image.expect_same();
      ASSERT_TRUE(amend(*image, "compat", "1.1").ok());
      EXPECT_EQ(image.header().version, 3u);
      expect_sound(*image);
      image.expect_same();
      EXPECT_TRUE(image->co_close().ok());
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Backing, Downgrade, testing::Bool());

/// Each I/O of the amendment fails once: it says so, what is seen stays, and the next try succeeds.
TEST(AmendTest, EachFailingIoLosesNothing) {
  const std::pair<const char*, const char*> changes[] = {{"refcount_bits", "64"}, {"refcount_bits", "8"},
                                                         {"compat", "0.10"},      {"lazy_refcounts", "on"},
                                                         {"size", "100K"},        {"size", "20K"}};
  for (const auto& [name, value] : changes) {
    SCOPED_TRACE(std::string(name) + "=" + value);
    const bool resizes = std::string_view(name) == "size";
    bool failed = true;
    for (uint64_t nth = 1; failed && !HasFailure(); ++nth) {
      SCOPED_TRACE(nth);
      run_in_main_loop([&]() coroutine_fn {
        AmendedImage image({.cluster_size = 1024, .backing = true}, 3, resizes ? 0 : 2);
        image.faults().fail_nth_io(nth, EIO);
        const auto amended = amend(*image, name, value);
        failed = image.faults().fired();
        image.faults().heal();
        if (!failed) {
          EXPECT_TRUE(amended.ok());
        }
        if (!resizes) image.expect_same();
        const auto again = amend(*image, name, value);
        ASSERT_TRUE(again.ok()) << again.error().message();
        if (!resizes) image.expect_same();
        EXPECT_TRUE(image->co_close().ok());
      });
    }
  }
}

}  // namespace
}  // namespace coimg::qcow2
