// The power goes at every point of a random run. Whatever of the unflushed writes has reached the disk, the image must
// open and be free of corruptions, and each byte must be what the last flush left or what was written since. A snapshot
// is there as a whole or not at all.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <span>
#include <sstream>

#include "block/util/math.h"
#include "tests/crash/random_runs.h"
#include "tests/formats/qcow2/image_fixture.h"

namespace coimg::qcow2 {
namespace {

using Bytes = std::vector<std::byte>;

/// With the snapshots that are there.
struct Version : crash::Version {
  bool snapshot_change = false;     ///< the operation was one on snapshots
  std::set<std::string> snapshots;  ///< their names
};

using crash::after_loss, crash::expect_allowed, crash::power_losses_at;

class CrashRun {
 public:
  CrashRun(const ImageKind& kind, uint64_t seed) coroutine_fn : kind_(kind), random_(seed) {
    const uint64_t size = kind.cluster_size * 24;
    if (kind.backing) backing_ = pattern(size - size / 4, seed);
    content_ = backing_;
    content_.resize(size);
    OpenFlags flags{.writable = true};
    flags.discard_unmap = random_() % 2;
    auto data = kind.data_file != DataFile::kNone ? make_fault_node(Bytes(size)) : nullptr;
    image_ = open_image(make_fault_node(create_image(kind, size)), backing_, flags, std::move(data));
    record(true);
  }

  void step() coroutine_fn {
    const uint64_t offset = pick(content_.size());
    const uint64_t bytes = 1 + pick(std::min(content_.size() - offset, kind_.cluster_size * 4));
    const uint64_t cluster = align_down(offset, kind_.cluster_size);
    const uint64_t clusters_end = std::min<uint64_t>(align_up(offset + bytes, kind_.cluster_size), content_.size());
    switch (pick(16)) {
      case 0 ... 3:
        write(offset, bytes);
        break;
      case 4 ... 5: {
        Bytes data = some_data(clusters_end - cluster);
        if (kind_.data_file == DataFile::kNone &&
            image_->co_pwrite_compressed(cluster, IoVector(std::span<std::byte>(data))).ok())
          change(cluster, data);
        break;
      }
      case 6 ... 7: {
        ZeroOptions options;
        options.may_unmap = pick(2);
        ASSERT_TRUE(image_->co_pwrite_zeroes(offset, bytes, options).ok());
        change(offset, Bytes(bytes));
        break;
      }
      case 8:
        ASSERT_TRUE(image_->co_pdiscard(cluster, clusters_end - cluster).ok());
        if (!(kind_.version2 && kind_.backing)) change(cluster, Bytes(clusters_end - cluster));
        break;
      case 9:
        if (pick(2) && !(kind_.version2 && !snapshots_.empty())) {
          const uint64_t size = align_up(kind_.cluster_size / 2 * (1 + pick(60)), kSectorSize);
          const Preallocation modes[] = {Preallocation::kOff, Preallocation::kMetadata, Preallocation::kFull};
          const Preallocation mode = size > content_.size() ? modes[pick(3)] : Preallocation::kOff;
          ASSERT_TRUE(image_->co_truncate(size, mode).ok());
          content_.resize(size);
        }
        break;
      case 10 ... 11:
        if (kind_.data_file != DataFile::kNone) break;  // has no snapshots
        return record(change_snapshots(), true);
      case 12:
        if (kind_.version2) break;
        change_bitmaps();
        break;
      case 13:
        if (pick(3)) break;
        ASSERT_TRUE(image_->co_make_empty().ok());
        change(0, Bytes(content_.size()));
        change(0, Bytes(backing_.begin(),
                        backing_.begin() + static_cast<ptrdiff_t>(std::min(backing_.size(), content_.size()))));
        break;
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
    const auto data_losses = image_->data_file() ? power_losses_at(*image_->data_file(), time, losses.size(), ~seed)
                                                 : std::vector<PowerLoss>();
    for (size_t i = 0; i < losses.size() && !testing::Test::HasFailure(); ++i) {
      const PowerLoss* const data_loss = data_losses.empty() ? nullptr : &data_losses[i % data_losses.size()];
      SCOPED_TRACE(losses[i].what + (data_loss ? "; data file: " + data_loss->what : ""));
      crash(time, losses[i], data_loss);
    }
    return losses.size();
  }

  uint64_t ios() const { return history_.ios(); }
  bool usable() const { return image_ != nullptr; }
  void close() coroutine_fn { EXPECT_TRUE(image_->co_close().ok()); }

 private:
  uint64_t pick(uint64_t limit) { return random_() % limit; }

  void crash(uint64_t time, const PowerLoss& loss, const PowerLoss* data_loss) coroutine_fn {
    crash::count_image();
    const auto disk = after_loss(*image_->file(), loss);
    const auto data_disk = data_loss ? after_loss(*image_->data_file(), *data_loss) : nullptr;
    const std::span<const Version> versions = history_.possible_at(time);
    const bool snapshot_change = std::ranges::any_of(versions, &Version::snapshot_change);

    std::vector<crash::NamedFile> files{{"image", disk->bytes}, {"base", backing_}};
    if (data_disk) files.push_back({"data", data_disk->bytes});
    crash::expect_sound_for_qemu(files, snapshot_change ? crash::CopiedFlags::kMayBeOff : crash::CopiedFlags::kRight);

    auto data = data_disk ? make_mem_node(data_disk) : nullptr;
    const auto after = open_image(make_mem_node(disk), backing_, {.writable = true}, std::move(data));
    ASSERT_NE(after, nullptr);
    expect_sound_after_crash(*after, snapshot_change);
    expect_allowed(read_all(*after), versions);
    expect_snapshots(*after, versions);
    if (kind_.data_file == DataFile::kRaw) {  // who reads it as raw sees what was flushed, too
      Bytes raw = data_disk->bytes;
      raw.resize(after->length());
      expect_allowed(raw, versions);
    }
    ASSERT_TRUE(after->co_close().ok());
  }

  Bytes some_data(uint64_t bytes) {
    Bytes data(bytes);
    const bool compressible = pick(3);
    for (std::byte& byte : data) byte = std::byte(compressible ? 'a' + random_() % 3 : random_());
    return data;
  }
  void write(uint64_t offset, uint64_t bytes) coroutine_fn {
    const Bytes data = some_data(bytes);
    ASSERT_TRUE(image_->co_pwrite(offset, data).ok());
    change(offset, data);
  }
  void change(uint64_t offset, const Bytes& data) {
    std::ranges::copy(data, content_.begin() + static_cast<ptrdiff_t>(offset));
  }
  void record(bool flush, bool snapshot_change = false) {
    history_.record({{.content = content_, .flush = flush}, snapshot_change, snapshots_});
  }

  void change_bitmaps() coroutine_fn {
    const bool there = !image_->driver().bitmaps().empty();
    const auto changed =
        there ? image_->co_remove_bitmap("b") : image_->co_add_bitmap({.name = "b", .granularity = 512});
    EXPECT_TRUE(changed.ok()) << changed.error().message();
  }

  /// Takes, applies or deletes a snapshot, which flushes. A refcount may be too narrow for one more: returns false.
  bool change_snapshots() coroutine_fn {
    if (snapshots_.empty() || pick(5) < 2) {
      const std::string name = "s" + std::to_string(snapshot_contents_.size());
      const auto created = image_->co_create_snapshot(name);
      if (!created.ok()) {
        EXPECT_LT(kind_.refcount_bits, 16u) << created.error().message();
        return false;
      }
      snapshots_.insert(name);
      snapshot_contents_[name] = content_;
      return true;
    }
    const std::string name = *std::next(snapshots_.begin(), static_cast<ptrdiff_t>(pick(snapshots_.size())));
    if (pick(2)) {
      const auto applied = image_->co_apply_snapshot({.id = {}, .name = name});
      if (!applied.ok()) {
        EXPECT_TRUE(kind_.refcount_bits < 16 || !image_->driver().bitmaps().empty()) << applied.error().message();
        content_.resize(image_->length());  // the size may have changed already
        return false;
      }
      content_ = snapshot_contents_[name];
      return true;
    }
    EXPECT_TRUE(image_->co_delete_snapshot({.id = {}, .name = name}).ok());
    snapshots_.erase(name);
    return true;
  }

  /// No corruption. While a snapshot operation is under way COPIED flags may be out of step, which repair mends.
  static void expect_sound_after_crash(BlockNode& image, bool copied_flags_may_be_off) coroutine_fn {
    if (!copied_flags_may_be_off) return expect_sound(image, /*leaks_allowed=*/true);
    FindingCollector findings;
    auto result = image.co_check({.reporter = &findings});
    ASSERT_TRUE(result.ok()) << result.error().message();
    std::istringstream lines(findings.text());
    for (std::string line; std::getline(lines, line);) {
      EXPECT_TRUE(line.find("OFLAG_COPIED") != std::string::npos || line.starts_with("Leaked cluster")) << line;
    }
    result = image.co_check({.repair = RepairMode::kAll});
    ASSERT_TRUE(result.ok()) << result.error().message();
    expect_sound(image);
  }

  /// Every snapshot that was there throughout is there, and each one that is there holds what it should.
  void expect_snapshots(BlockNode& image, std::span<const Version> versions) const coroutine_fn {
    const auto info = image.co_info();
    ASSERT_TRUE(info.ok());
    std::set<std::string> there;
    for (const SnapshotInfo& snapshot : info->snapshots) there.insert(snapshot.name);
    for (const std::string& name : versions.front().snapshots) {
      const auto has_it = [&](const Version& version) { return version.snapshots.contains(name); };
      EXPECT_TRUE(there.contains(name) || !std::ranges::all_of(versions, has_it)) << name;
    }
    const auto disk = std::make_shared<MemDisk>(mem_driver(*image.file()).bytes());
    for (const std::string& name : there) {
      const auto shown = open_image(make_mem_node(disk), backing_, {.writable = false});
      ASSERT_NE(shown, nullptr);
      ASSERT_TRUE(shown->co_show_snapshot({.id = {}, .name = name}).ok());
      EXPECT_EQ(read_all(*shown), snapshot_contents_.at(name)) << name;
      ASSERT_TRUE(shown->co_close().ok());
    }
  }

  const ImageKind kind_;
  std::mt19937_64 random_;
  Bytes backing_, content_;
  std::set<std::string> snapshots_;
  std::map<std::string, Bytes> snapshot_contents_;  ///< also of those that are gone
  crash::History<Version> history_;
  std::unique_ptr<BlockNode> image_;
};

class Crash : public testing::TestWithParam<ImageKind> {};

TEST_P(Crash, LeavesASoundImageWithAllThatWasFlushed) { crash::cut_power_everywhere<CrashRun>(GetParam()); }

INSTANTIATE_TEST_SUITE_P(
    Kinds, Crash,
    testing::Values(ImageKind{.cluster_size = 512}, ImageKind{.cluster_size = 512, .refcount_bits = 64},
                    ImageKind{.cluster_size = 512, .refcount_bits = 1, .backing = true},
                    ImageKind{.cluster_size = 1024, .version2 = true},
                    ImageKind{.cluster_size = 1024, .version2 = true, .backing = true}, ImageKind{.cluster_size = 4096},
                    ImageKind{.cluster_size = 4096, .refcount_bits = 2, .backing = true},
                    ImageKind{.cluster_size = 16384, .extended_l2 = true},
                    ImageKind{.cluster_size = 16384, .backing = true, .extended_l2 = true},
                    ImageKind{.cluster_size = 1024, .lazy_refcounts = true},
                    ImageKind{.cluster_size = 4096, .refcount_bits = 4, .backing = true, .lazy_refcounts = true},
                    ImageKind{.cluster_size = 2048, .zstd = true},
                    ImageKind{.cluster_size = 4096, .data_file = DataFile::kPlain, .lazy_refcounts = true},
                    ImageKind{.cluster_size = 512, .data_file = DataFile::kPlain},
                    ImageKind{.cluster_size = 4096, .data_file = DataFile::kRaw},
                    ImageKind{
                        .cluster_size = 16384, .backing = true, .extended_l2 = true, .data_file = DataFile::kPlain}));

}  // namespace
}  // namespace coimg::qcow2
