// Each I/O of each operation of a guest fails once: the operation says so, or has done what it was asked for; nothing
// else has changed; and the same operation succeeds afterwards.
#include <gtest/gtest.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "coroutine/main_loop.h"
#include "tests/formats/qcow2/image_fixture.h"
#include "tests/support/fault_driver.h"

namespace coimg::qcow2 {
namespace {

using Bytes = std::vector<std::byte>;

struct Operation {
  std::string name;
  std::function<Result<void>(BlockNode&)> run;  ///< a coroutine_fn
  std::function<void(Bytes&)> effect;           ///< on what the guest sees
  bool needs_own_data = false;                  ///< nothing for images with a data file
};

enum class Failure { kNothingDone, kBegun };

Bytes filled(uint64_t bytes, char with) { return Bytes(bytes, std::byte(with)); }

void overwrite(Bytes& content, uint64_t offset, const Bytes& data) {
  std::ranges::copy(data, content.begin() + static_cast<ptrdiff_t>(offset));
}

/// The disk has 12 clusters and a sector: clusters 0 to 3 are data but for the first half, 5 and 6 are compressed, 7 is
/// zero, the others are not allocated.
class OperationFaults : public testing::TestWithParam<ImageKind> {
 protected:
  static constexpr uint64_t kClusters = 12;

  [[nodiscard]] uint64_t cluster() const { return GetParam().cluster_size; }
  [[nodiscard]] uint64_t size() const { return kClusters * cluster() + 512; }

  void prepare() coroutine_fn {
    disk_ = create_image(GetParam(), size());
    if (GetParam().data_file != DataFile::kNone) data_disk_ = std::make_shared<MemDisk>(Bytes(size()));
    if (GetParam().backing) backing_ = filled(10 * cluster(), 'b');
    const auto image = open(disk_, data_disk_);
    ASSERT_NE(image, nullptr);
    const Bytes data = filled(cluster() * 7 / 2, 'd');
    ASSERT_TRUE(image->co_pwrite(cluster() / 2, data).ok());
    Bytes text = filled(2 * cluster(), 't');
    if (!data_disk_) {
      ASSERT_TRUE(image->co_pwrite_compressed(5 * cluster(), IoVector(std::span<std::byte>(text))).ok());
    }
    ASSERT_TRUE(image->co_pwrite_zeroes(7 * cluster(), cluster(), {}).ok());
    old_content_ = read_all(*image);
    ASSERT_TRUE(image->co_close().ok());
  }

  /// With faults to come from `file` and, with a data file, `data`.
  std::unique_ptr<BlockNode> open(const std::shared_ptr<MemDisk>& disk, const std::shared_ptr<MemDisk>& data_disk)
      coroutine_fn {
    auto file = make_fault_node(disk);
    auto data = data_disk ? make_fault_node(data_disk) : nullptr;
    file_ = &fault_driver(*file);
    data_ = data ? &fault_driver(*data) : nullptr;
    return open_image(std::move(file), backing_, {.writable = true, .discard_unmap = true}, std::move(data));
  }

  [[nodiscard]] std::vector<Operation> operations() const {
    const uint64_t c = cluster();
    const auto write = [](uint64_t offset, const Bytes& data) {
      return Operation{
          .name = fmt::format("writing {} bytes at {}", data.size(), offset),
          .run = [=](BlockNode& image) coroutine_fn { return image.co_pwrite(offset, data); },
          .effect = [=](Bytes& content) { overwrite(content, offset, data); },
      };
    };
    const auto zero = [](uint64_t offset, uint64_t bytes, bool may_unmap) {
      return Operation{
          .name = fmt::format("zeroing {} bytes at {}{}", bytes, offset, may_unmap ? ", unmapped" : ""),
          .run = [=](BlockNode& image)
                     coroutine_fn { return image.co_pwrite_zeroes(offset, bytes, {.may_unmap = may_unmap}); },
          .effect = [=](Bytes& content) { overwrite(content, offset, Bytes(bytes)); },
      };
    };
    const auto resize = [](uint64_t bytes) {
      return Operation{
          .name = fmt::format("resizing to {} bytes", bytes),
          .run = [=](BlockNode& image) coroutine_fn { return image.co_truncate(bytes); },
          .effect = [=](Bytes& content) { content.resize(bytes); },
      };
    };
    const bool keeps_discarded = GetParam().version2 && GetParam().backing;
    return {
        write(8 * c + 7, filled(100, 'n')),    // a new cluster
        write(c / 4, filled(11 * c, 'w')),     // clusters of all kinds
        write(5 * c + c / 2, filled(c, 'x')),  // in place of compressed clusters
        write(12 * c, filled(512, 'e')),       // the end
        zero(c / 2, 8 * c, /*may_unmap=*/true),
        zero(c / 2, 8 * c, /*may_unmap=*/false),
        {.name = "discarding",
         .run = [=](BlockNode& image) coroutine_fn { return image.co_pdiscard(c, 6 * c); },
         .effect =
             [=](Bytes& content) {
               if (!keeps_discarded) overwrite(content, c, Bytes(6 * c));
             }},
        {.name = "writing compressed",
         .run =
             [=](BlockNode& image) coroutine_fn {
               Bytes text = filled(c, 'z');
               return image.co_pwrite_compressed(9 * c, IoVector(std::span<std::byte>(text)));
             },
         .effect = [=](Bytes& content) { overwrite(content, 9 * c, filled(c, 'z')); },
         .needs_own_data = true},
        resize(40 * c),
        resize(3 * c + 512),
    };
  }

  /// Returns false when the operation has fewer I/Os than `nth`. `on_data`: of the data file.
  bool fail_once(const Operation& operation, uint64_t nth, Failure failure, bool on_data) coroutine_fn {
    const auto disk = std::make_shared<MemDisk>(disk_->bytes);
    const auto data_disk = data_disk_ ? std::make_shared<MemDisk>(data_disk_->bytes) : nullptr;
    const auto image = open(disk, data_disk);
    if (image == nullptr) return false;
    Bytes new_content = old_content_;
    operation.effect(new_content);

    FaultDriver& driver = on_data ? *data_ : *file_;
    if (failure == Failure::kBegun) driver.let_failed_writes_begin();
    driver.fail_nth_io(nth, failure == Failure::kBegun ? ENOSPC : EIO);
    const bool done = operation.run(*image).ok();
    const bool flushed = image->co_flush().ok();
    const bool fired = driver.fired();
    driver.heal();

    EXPECT_TRUE(fired || (done && flushed));
    if (done && flushed) {
      EXPECT_EQ(read_all(*image), new_content) << "it was said to be done";
    } else {
      expect_old_or_new(read_all(*image), new_content);
      const auto again = done ? image->co_flush() : operation.run(*image);
      EXPECT_TRUE(again.ok()) << again.error().message();
      EXPECT_EQ(read_all(*image), new_content);
    }
    EXPECT_TRUE(image->co_close().ok());

    const auto reopened = open(disk, data_disk);
    EXPECT_NE(reopened, nullptr);
    if (reopened == nullptr) return false;
    EXPECT_EQ(read_all(*reopened), new_content);
    expect_sound(*reopened, /*leaks_allowed=*/true);
    EXPECT_TRUE(reopened->co_close().ok());
    return fired;
  }

  void expect_old_or_new(const Bytes& seen, const Bytes& new_content) const {
    ASSERT_TRUE(seen.size() == old_content_.size() || seen.size() == new_content.size()) << seen.size();
    for (size_t i = 0; i < seen.size(); ++i) {
      const bool is_old = i < old_content_.size() && seen[i] == old_content_[i];
      const bool is_new = i < new_content.size() && seen[i] == new_content[i];
      // What a shrink is about to cut is given up first, and what grows has zeros.
      const bool is_cut = i >= new_content.size() || i >= old_content_.size();
      const bool is_below = seen[i] == std::byte{0} || (i < backing_.size() && seen[i] == backing_[i]);
      ASSERT_TRUE(is_old || is_new || (is_cut && is_below)) << "byte " << i;
    }
  }

  std::shared_ptr<MemDisk> disk_, data_disk_;
  Bytes backing_, old_content_;
  FaultDriver* file_ = nullptr;
  FaultDriver* data_ = nullptr;
};

TEST_P(OperationFaults, LoseNothing) {
  run_in_main_loop([this]() coroutine_fn {
    ASSERT_NO_FATAL_FAILURE(prepare());
    for (const Operation& operation : operations()) {
      if (operation.needs_own_data && data_disk_) continue;
      for (const Failure failure : {Failure::kNothingDone, Failure::kBegun}) {
        for (const bool on_data : {false, true}) {
          if (on_data && !data_disk_) continue;
          for (uint64_t nth = 1; !HasFailure(); ++nth) {
            SCOPED_TRACE(testing::Message()
                         << operation.name << ": I/O number " << nth << " of the " << (on_data ? "data file" : "image")
                         << " fails " << (failure == Failure::kBegun ? "half-way" : "at once"));
            if (!fail_once(operation, nth, failure, on_data)) break;
          }
        }
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, OperationFaults,
    testing::Values(ImageKind{.cluster_size = 512, .refcount_bits = 64}, ImageKind{.cluster_size = 4096},
                    ImageKind{.cluster_size = 512, .version2 = true},
                    ImageKind{.cluster_size = 4096, .version2 = true, .backing = true},
                    ImageKind{.cluster_size = 4096, .refcount_bits = 1, .backing = true},
                    ImageKind{.cluster_size = 4096, .lazy_refcounts = true, .zstd = true},
                    ImageKind{.cluster_size = 16384, .extended_l2 = true},
                    ImageKind{.cluster_size = 16384, .backing = true, .extended_l2 = true},
                    ImageKind{.cluster_size = 4096, .backing = true, .data_file = DataFile::kPlain},
                    ImageKind{.cluster_size = 4096, .data_file = DataFile::kRaw},
                    ImageKind{.cluster_size = 16384, .extended_l2 = true, .data_file = DataFile::kPlain}));

}  // namespace
}  // namespace coimg::qcow2
