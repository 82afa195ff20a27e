// Damage on purpose: what check finds, what repair makes of it, and what failures on the way leave behind.
#include "formats/qcow2/check.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "coroutine/compiler.h"
#include "coroutine/main_loop.h"
#include "formats/qcow2/driver.h"
#include "tests/formats/qcow2/image_bytes.h"
#include "tests/support/fault_driver.h"
#include "tests/support/mem_driver.h"

namespace coimg::qcow2 {
namespace {

using testing::Contains;
using testing::HasSubstr;

class Findings final : public CheckReporter {
 public:
  void finding(std::string_view line) override { lines.emplace_back(line); }
  std::vector<std::string> lines;
};

struct Outcome {
  Result<CheckResult> result = Error(ENOTSUP, "not run");
  std::vector<std::string> findings;
};

/// Opens the image in `file` for check, checks it and closes it.
Outcome check_node(std::unique_ptr<BlockNode> file, RepairMode mode) coroutine_fn {
  static const std::unique_ptr<DriverType> type = make_qcow2_driver_type();
  Outcome outcome;
  OpenFlags flags{.check = true};
  flags.writable = mode != RepairMode::kNone;
  auto node = open_format(*type, std::move(file), flags);
  if (!node.ok()) {
    outcome.result = std::move(node).error();
    return outcome;
  }
  Findings findings;
  outcome.result = (*node)->co_check({.repair = mode, .reporter = &findings});
  outcome.findings = std::move(findings.lines);
  const Result<void> closed = (*node)->co_close();
  if (!closed.ok() && outcome.result.ok()) outcome.result = closed.error();
  return outcome;
}

Outcome check_disk(const std::shared_ptr<MemDisk>& disk, RepairMode mode = RepairMode::kNone) coroutine_fn {
  OpenFlags flags;
  flags.writable = mode != RepairMode::kNone;
  MemOptions options;
  options.yields = true;  // so that tables arrive in another order than they were asked for
  return check_node(make_mem_node(disk, options, flags), mode);
}

/// What the guest sees.
std::vector<std::byte> guest_content(const std::shared_ptr<MemDisk>& disk) coroutine_fn {
  static const std::unique_ptr<DriverType> type = make_qcow2_driver_type();
  auto node = open_format(*type, make_mem_node(disk, {}, {}), {});
  EXPECT_TRUE(node.ok()) << (node.ok() ? "" : node.error().message());
  if (!node.ok()) return {};
  std::vector<std::byte> content = read_all(**node);
  EXPECT_TRUE((*node)->co_close().ok());
  return content;
}

std::shared_ptr<MemDisk> make_disk(const ImageBytes& image) { return std::make_shared<MemDisk>(image.bytes); }

void expect_clean(const Outcome& outcome) {
  ASSERT_TRUE(outcome.result.ok()) << outcome.result.error().message();
  EXPECT_EQ(outcome.result->corruptions, 0u);
  EXPECT_EQ(outcome.result->leaks, 0u);
  EXPECT_EQ(outcome.result->check_errors, 0u);
  EXPECT_THAT(outcome.findings, testing::IsEmpty());
}

/// qemu-img, where it is installed, finds nothing either.
void expect_peer_agrees(const std::shared_ptr<MemDisk>& disk) {
  static const bool installed = std::system("qemu-img --version >/dev/null 2>&1") == 0;
  if (!installed) return;
  const std::string path = fmt::format("{}/check_test_{}.qcow2", testing::TempDir(), ::getpid());
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(disk->bytes.data()), static_cast<std::streamsize>(disk->bytes.size()));
  const int status = std::system(fmt::format("qemu-img check -f qcow2 '{}' >/dev/null 2>&1", path).c_str());
  std::filesystem::remove(path);
  EXPECT_EQ(WEXITSTATUS(status), 0) << "qemu-img check disagrees";
}

// --- sound images ---------------------------------------------------------------------------------------------------

TEST(Check, SoundImageHasNoFindingsAndRightStatistics) {
  run_in_main_loop([]() coroutine_fn {
    for (uint32_t order = 0; order <= 6; ++order) {
      SCOPED_TRACE(fmt::format("refcounts of {} bits", 1 << order));
      const ImageBytes image({.refcount_order = order});
      const Outcome outcome = check_disk(make_disk(image));
      expect_clean(outcome);
      EXPECT_EQ(outcome.result->total_clusters, 64u);
      EXPECT_EQ(outcome.result->allocated_clusters, ImageBytes::kDataClusters);
      EXPECT_EQ(outcome.result->fragmented_clusters, 0u);
      EXPECT_EQ(outcome.result->image_end_offset, image.bytes.size());
    }
  });
}

TEST(Check, SnapshotsAreCounted) {
  run_in_main_loop([]() coroutine_fn {
    const ImageBytes image({.snapshot = true});
    expect_clean(check_disk(make_disk(image)));
  });
}

// --- kinds of damage ------------------------------------------------------------------------------------------------

struct Damage {
  const char* name;
  std::function<void(ImageBytes&)> inflict;
  uint64_t corruptions, leaks;
  const char* finding;
  uint64_t corruptions_after_all = 0;  ///< left by repair of everything
  bool same_content = true;            ///< the guest sees the same afterwards
  bool snapshot = false;
  uint64_t leaks_after_all = 0;  ///< where no corruption is left; kept as something may refer to them
};

const std::vector<Damage>& damages() {
  using Image = ImageBytes;
  static const std::vector<Damage> all = {
      {"leak", [](Image& i) { i.put64(i.l2_entry_at(3), 0); }, 0, 1, "Leaked cluster 8 refcount=1 reference=0"},
      {"refcount too high", [](Image& i) { i.set_refcount(7, 5); }, 1, 1, "Leaked cluster 7 refcount=5 reference=1"},
      {"metadata refcount too high", [](Image& i) { i.set_refcount(Image::kTable, 2); }, 0, 1,
       "Leaked cluster 1 refcount=2 reference=1"},
      {"shared cluster", [](Image& i) { i.put64(i.l2_entry_at(20), i.get64(i.l2_entry_at(3))); }, 1, 0,
       "ERROR cluster 8 refcount=1 reference=2"},
      {"refcount zero", [](Image& i) { i.set_refcount(8, 0); }, 2, 0, "ERROR cluster 8 refcount=0 reference=1"},
      {"block lost", [](Image& i) { i.put64(i.offset_of(Image::kTable), 0); }, 12 + 9, 0,
       "ERROR cluster 0 refcount=0 reference=1"},
      {"no refcount table", [](Image& i) { i.put32(56, 0); }, 11 + 9, 0, "ERROR cluster 0 refcount=0 reference=1"},
      {"block unaligned", [](Image& i) { i.put64(i.offset_of(Image::kTable), i.offset_of(Image::kBlock) + 512); }, 1, 0,
       "ERROR refcount block 0 is not cluster aligned; refcount table entry corrupted"},
      {"table entry with reserved bits",
       [](Image& i) { i.put64(i.offset_of(Image::kTable), i.offset_of(Image::kBlock) + 1); }, 1, 1,
       "ERROR refcount table entry 0 has reserved bits set"},
      {"block used twice", [](Image& i) { i.put64(i.offset_of(Image::kTable) + 8, i.offset_of(Image::kBlock)); }, 2, 0,
       "ERROR refcount block 1 refcount=2"},
      {"block in an L2 table", [](Image& i) { i.put64(i.offset_of(Image::kTable) + 8, i.offset_of(Image::kL2)); }, 2, 0,
       "ERROR refcount block 1 refcount=2"},
      {"block outside", [](Image& i) { i.put64(i.offset_of(Image::kTable) + 16, uint64_t{1} << 60); }, 1, 0,
       "ERROR refcount block 2 is outside image"},
      {"block behind any file", [](Image& i) { i.put64(i.offset_of(Image::kTable) + 16, uint64_t{1} << 63); }, 1, 0,
       "ERROR refcount block 2 is outside image"},
      {"L1 COPIED missing", [](Image& i) { i.put64(i.offset_of(Image::kL1), i.offset_of(Image::kL2)); }, 1, 0,
       "ERROR OFLAG_COPIED L2 cluster: l1_index=0 l1_entry=4000 refcount=1"},
      {"L2 COPIED missing", [](Image& i) { i.put64(i.l2_entry_at(0), i.offset_of(Image::kData)); }, 1, 0,
       "ERROR OFLAG_COPIED data cluster: l2_entry=5000 refcount=1"},
      {"L2 COPIED too many", [](Image& i) { i.put64(i.l2_entry_at(0), i.get64(i.l2_entry_at(0)) | kEntryCopied); }, 1,
       0, "ERROR OFLAG_COPIED data cluster: l2_entry=8000000000005000 refcount=2", 0, true, true},
      {"L1 reserved", [](Image& i) { i.put64(i.offset_of(Image::kL1), i.get64(i.offset_of(Image::kL1)) | 1 << 3); }, 1,
       0, "ERROR found L1 entry with reserved bits set: 8000000000004008", 1},
      {"L2 reserved", [](Image& i) { i.put64(i.l2_entry_at(1), i.get64(i.l2_entry_at(1)) | 2); }, 1, 0,
       "ERROR found l2 entry with reserved bits set: 8000000000006002", 1},
      {"L2 unaligned", [](Image& i) { i.put64(i.l2_entry_at(6), i.get64(i.l2_entry_at(6)) + 512); }, 2, 0,
       "ERROR offset=b200: Data cluster is not properly aligned; L2 entry corrupted.", 1, false},
      {"zero cluster unaligned", [](Image& i) { i.put64(i.l2_entry_at(2), i.get64(i.l2_entry_at(2)) + 513); }, 2, 0,
       "ERROR offset=7200: Preallocated cluster is not properly aligned; L2 entry corrupted.", 0, false},
      {"data behind the end", [](Image& i) { i.put64(i.l2_entry_at(2), 0x1000000 | kEntryCopied); }, 2, 1,
       "ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset 0x1000000 "
       "size 0x1000",
       1},
      {"L1 table behind the end", [](Image& i) { i.put64(40, 0x1000000); }, 1, 10,
       "ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset 0x1000000 "
       "size 0x8",
       1},
      {"L2 table behind the end", [](Image& i) { i.put64(i.offset_of(Image::kL1), 0x1000000); }, 1, 9,
       "ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset 0x1000000 "
       "size 0x1000",
       1},
      {"L2 table unaligned", [](Image& i) { i.put64(i.offset_of(Image::kL1), i.offset_of(Image::kL2) + 512); }, 1, 7,
       "ERROR l2_offset=4200: Table is not cluster aligned; L1 entry corrupted", 1, false},
      {"L1 entry COPIED without a table", [](Image& i) { i.put64(i.offset_of(Image::kL1), kEntryCopied); }, 1, 9,
       "ERROR OFLAG_COPIED L2 cluster: l1_index=0 l1_entry=8000000000000000 refcount=0", 0, true, false, 9},
      {"compressed COPIED", [](Image& i) { i.put64(i.l2_entry_at(0), i.get64(i.l2_entry_at(0)) | kL2Compressed); }, 1,
       0, "ERROR: coffset=0x5000: copied flag must never be set for compressed clusters", 1, false},
      {"snapshot L1 unaligned",
       [](Image& i) { i.put64(i.offset_of(Image::kSnapshots), i.offset_of(Image::kL1) + 512); }, 1, 10,
       "ERROR snapshot 1 (s) l1_offset=0x3200: L1 table is not cluster aligned; snapshot table entry corrupted", 1,
       true, true},
      {"snapshot L1 too large", [](Image& i) { i.put32(i.offset_of(Image::kSnapshots) + 8, 0x800000); }, 1, 10,
       "ERROR snapshot 1 (s) l1_size=0x800000: L1 table is too large; snapshot table entry corrupted", 1, true, true},
  };
  return all;
}

/// Reads what the guest sees, unless the damage makes that impossible.
std::vector<std::byte> content_if_comparable(const Damage& damage, const std::shared_ptr<MemDisk>& disk) coroutine_fn {
  if (!damage.same_content || std::string_view(damage.name) == "no refcount table") return {};
  return guest_content(disk);
}

TEST(Check, EachKindOfDamageIsFoundAndNamed) {
  run_in_main_loop([]() coroutine_fn {
    for (const Damage& damage : damages()) {
      SCOPED_TRACE(damage.name);
      ImageBytes image({.snapshot = damage.snapshot});
      damage.inflict(image);
      const auto disk = make_disk(image);
      const Outcome outcome = check_disk(disk);
      ASSERT_TRUE(outcome.result.ok()) << outcome.result.error().message();
      EXPECT_EQ(outcome.result->corruptions, damage.corruptions)
          << fmt::format("{}", fmt::join(outcome.findings, "\n"));
      EXPECT_EQ(outcome.result->leaks, damage.leaks) << fmt::format("{}", fmt::join(outcome.findings, "\n"));
      EXPECT_THAT(outcome.findings, Contains(damage.finding));
      EXPECT_EQ(disk->bytes, image.bytes) << "a check without repair wrote";
    }
  });
}

TEST(Repair, EachKindOfDamageIsRepairedAsFarAsItCanBe) {
  run_in_main_loop([]() coroutine_fn {
    for (const Damage& damage : damages()) {
      SCOPED_TRACE(damage.name);
      ImageBytes image({.snapshot = damage.snapshot});
      damage.inflict(image);
      image.put64(72, kDirty | kCorrupt);
      const auto disk = make_disk(image);
      const auto before = content_if_comparable(damage, disk);

      const Outcome repaired = check_disk(disk, RepairMode::kAll);
      ASSERT_TRUE(repaired.result.ok()) << repaired.result.error().message();
      EXPECT_GT(repaired.result->corruptions_fixed + repaired.result->leaks_fixed + damage.corruptions_after_all, 0u);

      const Outcome again = check_disk(disk);
      ASSERT_TRUE(again.result.ok());
      EXPECT_EQ(again.result->corruptions, damage.corruptions_after_all)
          << fmt::format("{}", fmt::join(again.findings, "\n"));
      be64 features;
      std::memcpy(static_cast<void*>(&features), disk->bytes.data() + 72, sizeof features);
      EXPECT_EQ(features, damage.corruptions_after_all == 0 ? 0u : uint64_t{kDirty | kCorrupt});
      if (damage.corruptions_after_all == 0) {
        EXPECT_EQ(again.result->leaks, damage.leaks_after_all);
      }
      if (damage.corruptions_after_all == 0 && damage.leaks_after_all == 0) {
        expect_clean(again);
        expect_peer_agrees(disk);
      }
      EXPECT_EQ(content_if_comparable(damage, disk), before);
    }
  });
}

TEST(Check, ABlockBehindAnyFileLeavesRefcountsUnknown) {
  run_in_main_loop([]() coroutine_fn {
    ImageBytes image({});
    image.put64(image.offset_of(ImageBytes::kTable), uint64_t{1} << 63);
    const auto disk = make_disk(image);
    const Outcome found = check_disk(disk);
    ASSERT_TRUE(found.result.ok());
    EXPECT_EQ(found.result->corruptions, 1u);
    EXPECT_EQ(found.result->check_errors, image.bytes.size() / image.geometry.cluster_size());
    EXPECT_THAT(found.findings, Contains("Can't get refcount for cluster 0: Input/output error"));
    ASSERT_TRUE(check_disk(disk, RepairMode::kAll).result.ok());
    expect_clean(check_disk(disk));
    expect_peer_agrees(disk);
  });
}

TEST(Repair, TellsOnceWhatItKeepsBecauseALostTableMayReferToIt) {
  run_in_main_loop([]() coroutine_fn {
    for (const RepairMode mode : {RepairMode::kLeaks, RepairMode::kAll}) {
      ImageBytes image({});
      image.put64(image.offset_of(ImageBytes::kL1), 0x1000000);
      const auto disk = make_disk(image);
      const Outcome outcome = check_disk(disk, mode);
      ASSERT_TRUE(outcome.result.ok());
      EXPECT_EQ(outcome.result->leaks, 9u);
      EXPECT_EQ(outcome.result->leaks_fixed, 0u);
      EXPECT_EQ(std::ranges::count(outcome.findings, "Leaked cluster 5 refcount=1 reference=0"), 1);
      EXPECT_THAT(outcome.findings,
                  Contains("Leaked clusters are kept: a table that cannot be followed may have referred to them"));
      EXPECT_EQ(disk->bytes, image.bytes);
    }
  });
}

TEST(Repair, OfLeaksLowersRefcountsAndLeavesCorruptionsAlone) {
  run_in_main_loop([]() coroutine_fn {
    ImageBytes image({});
    image.put64(image.l2_entry_at(20), image.get64(image.l2_entry_at(3)));
    image.put64(image.l2_entry_at(5), 0);
    image.put64(72, kDirty);
    const auto disk = make_disk(image);
    const Outcome outcome = check_disk(disk, RepairMode::kLeaks);
    ASSERT_TRUE(outcome.result.ok());
    EXPECT_EQ(outcome.result->leaks_fixed, 1u);
    EXPECT_EQ(outcome.result->corruptions_fixed, 0u);
    EXPECT_EQ(outcome.result->corruptions, 1u);
    ImageBytes expected = image;
    expected.set_refcount(10, 0);
    EXPECT_EQ(disk->bytes, expected.bytes)
        << "only the refcount of the leaked cluster may change; the image stays dirty";
  });
}

TEST(Repair, OfLeaksRefusesWhenARebuildIsNeededAndChangesNothing) {
  run_in_main_loop([]() coroutine_fn {
    ImageBytes image({});
    image.set_refcount(8, 0);
    image.put64(image.l2_entry_at(5), 0);
    image.put64(72, kDirty);
    const auto disk = make_disk(image);
    const Outcome outcome = check_disk(disk, RepairMode::kLeaks);
    ASSERT_FALSE(outcome.result.ok());
    EXPECT_EQ(outcome.result.error().errnum(), EIO);
    EXPECT_THAT(outcome.findings, Contains("ERROR need to rebuild refcount structures"));
    EXPECT_EQ(disk->bytes, image.bytes);
  });
}

TEST(Repair, KeepsWhatALostTableMayReferTo) {
  run_in_main_loop([]() coroutine_fn {
    // The snapshot's L1 table cannot be followed, and the structures need a rebuild: its clusters must stay taken.
    ImageBytes image({.snapshot = true});
    image.put32(image.offset_of(ImageBytes::kSnapshots) + 8, 0x800000);
    image.put64(image.l2_entry_at(4), 0);  // now only the snapshot, through a table of its own, could use it
    image.set_refcount(6, 0);
    const auto disk = make_disk(image);
    const Outcome outcome = check_disk(disk, RepairMode::kAll);
    ASSERT_TRUE(outcome.result.ok()) << outcome.result.error().message();
    EXPECT_THAT(outcome.findings, Contains("Rebuilding refcount structure"));
    const Outcome again = check_disk(disk);
    EXPECT_THAT(again.findings, Contains("Leaked cluster 9 refcount=2 reference=0"));
    EXPECT_EQ(std::memcmp(disk->bytes.data() + image.offset_of(9), image.bytes.data() + image.offset_of(9), 4096), 0);
  });
}

TEST(Repair, WorksForEachRefcountWidth) {
  run_in_main_loop([]() coroutine_fn {
    for (uint32_t order = 0; order <= 6; ++order) {
      for (const bool rebuild : {false, true}) {
        SCOPED_TRACE(fmt::format("refcounts of {} bits, {}", 1 << order, rebuild ? "rebuild" : "in place"));
        ImageBytes image({.refcount_order = order});
        if (rebuild) image.set_refcount(8, 0);
        image.put64(image.l2_entry_at(1), 0);
        const auto disk = make_disk(image);
        const Outcome outcome = check_disk(disk, RepairMode::kAll);
        ASSERT_TRUE(outcome.result.ok()) << outcome.result.error().message();
        EXPECT_EQ(outcome.result->leaks_fixed, 1u);
        EXPECT_EQ(outcome.result->corruptions_fixed, rebuild ? 1u : 0u);
        expect_clean(check_disk(disk));
        expect_peer_agrees(disk);
      }
    }
  });
}

TEST(Repair, CompletesShortSnapshotEntries) {
  run_in_main_loop([]() coroutine_fn {
    ImageBytes image({.snapshot = true});
    const uint64_t entry = image.offset_of(ImageBytes::kSnapshots);
    image.put32(entry + 36, 0);
    image.put32(entry + 32, 1234);  // VM state
    image.bytes[entry + 40] = std::byte{'1'};
    image.bytes[entry + 41] = std::byte{'s'};
    const auto disk = make_disk(image);
    const Outcome found = check_disk(disk);
    ASSERT_TRUE(found.result.ok());
    EXPECT_EQ(found.result->corruptions, 1u);
    EXPECT_THAT(found.findings, Contains("ERROR snapshot table entry 0 is incomplete"));
    const Outcome repaired = check_disk(disk, RepairMode::kAll);
    ASSERT_TRUE(repaired.result.ok()) << repaired.result.error().message();
    EXPECT_EQ(repaired.result->corruptions_fixed, 1u);
    expect_clean(check_disk(disk));
    expect_peer_agrees(disk);
  });
}

// What was in it is lost. Its clusters may still be somewhere, so the leaks stay too.
TEST(Repair, ASnapshotTableBehindTheEndOfTheFileStaysAsItIs) {
  run_in_main_loop([]() coroutine_fn {
    ImageBytes image({.snapshot = true});
    constexpr uint64_t kSnapshotsOffsetField = 64, kFarBehind = 0x7f000000;
    image.put64(kSnapshotsOffsetField, kFarBehind);
    const auto disk = make_disk(image);
    for (const RepairMode mode : {RepairMode::kNone, RepairMode::kAll}) {
      const Outcome outcome = check_disk(disk, mode);
      ASSERT_TRUE(outcome.result.ok()) << outcome.result.error().message();
      EXPECT_EQ(outcome.result->corruptions_fixed, 0u);
      EXPECT_GT(outcome.result->corruptions, 0u);
      EXPECT_THAT(outcome.findings, Contains("ERROR snapshot table entry 0 is incomplete")) << "nothing is repaired";
    }
    EXPECT_EQ(image.get64(kSnapshotsOffsetField), kFarBehind);
  });
}

TEST(Repair, CutsExtraDataOfSnapshotsThatAreTooLong) {
  run_in_main_loop([]() coroutine_fn {
    ImageBytes image({.snapshot = true});
    const uint64_t entry = image.offset_of(ImageBytes::kSnapshots);
    constexpr uint32_t kTooMuch = 1500;
    constexpr uint64_t kExtra = 40;
    std::vector<std::byte> names{std::byte{'1'}, std::byte{'s'}};
    image.put32(entry + 36, kTooMuch);
    image.bytes.resize(std::max(image.bytes.size(), entry + kExtra + kTooMuch + names.size()));
    std::ranges::copy(names, image.bytes.begin() + static_cast<ptrdiff_t>(entry + kExtra + kTooMuch));
    const auto disk = make_disk(image);
    const Outcome found = check_disk(disk);
    ASSERT_FALSE(found.result.ok());
    EXPECT_EQ(found.result.error().message(), "Too much extra metadata in snapshot table entry 0");
    EXPECT_EQ(found.result.error().hint(), "You can force-remove this extra metadata with check -r all\n");
    const Outcome repaired = check_disk(disk, RepairMode::kAll);
    ASSERT_TRUE(repaired.result.ok()) << repaired.result.error().message();
    EXPECT_THAT(repaired.findings,
                Contains("Discarding too much extra metadata in snapshot table entry 0 (1500 > 1024)"));
    EXPECT_EQ(repaired.result->corruptions_fixed, 1u);
    expect_clean(check_disk(disk));
    expect_peer_agrees(disk);
  });
}

/// An image with one snapshot too many.
ImageBytes image_with_too_many_snapshots() {
  constexpr uint64_t kEmptyEntryBytes = 40;
  ImageBytes image({.cluster_bits = 16, .snapshot = true});
  // Entries without names follow the first one, in a table that goes to the end of the file.
  const uint64_t table = image.bytes.size();
  const uint64_t entry = image.offset_of(ImageBytes::kSnapshots);
  const std::vector<std::byte> first(image.bytes.begin() + static_cast<ptrdiff_t>(entry),
                                     image.bytes.begin() + static_cast<ptrdiff_t>(entry + 80));
  const uint64_t clusters = image.geometry.clusters_for(table + 80 + kMaxSnapshots * kEmptyEntryBytes);
  image.bytes.resize(clusters << image.geometry.cluster_bits());
  std::ranges::copy(first, image.bytes.begin() + static_cast<ptrdiff_t>(table));
  for (uint64_t i = image.clusters; i < clusters; ++i) image.set_refcount(i, 1);
  image.put32(60, kMaxSnapshots + 1);
  image.put64(64, table);
  return image;
}

TEST(Repair, DiscardsSnapshotsThatAreTooMany) {
  run_in_main_loop([]() coroutine_fn {
    const ImageBytes image = image_with_too_many_snapshots();
    const auto disk = make_disk(image);
    const Outcome found = check_disk(disk);
    ASSERT_FALSE(found.result.ok());
    EXPECT_EQ(found.result.error().message(), "Snapshot table too large");
    const Outcome repaired = check_disk(disk, RepairMode::kAll);
    ASSERT_TRUE(repaired.result.ok()) << repaired.result.error().message();
    EXPECT_THAT(repaired.findings, Contains("Discarding 1 overhanging snapshots"));
    EXPECT_EQ(repaired.result->corruptions, 0u);
    expect_clean(check_disk(disk));
  });
}

TEST(Repair, DiscardsSnapshotsThatAreTooManyBesideDamageThatStays) {
  run_in_main_loop([]() coroutine_fn {
    ImageBytes image = image_with_too_many_snapshots();
    image.put64(image.l2_entry_at(20), 0x50200);
    image.set_refcount(ImageBytes::kData, 1);  // and damage that is repaired on the way
    const auto disk = make_disk(image);
    const Outcome repaired = check_disk(disk, RepairMode::kAll);
    ASSERT_TRUE(repaired.result.ok()) << repaired.result.error().message();
    EXPECT_GE(repaired.result->corruptions, 1u);
    const Outcome again = check_disk(disk);
    ASSERT_TRUE(again.result.ok()) << again.result.error().message();
    EXPECT_EQ(again.result->corruptions, repaired.result->corruptions);
    EXPECT_EQ(again.result->leaks, 0u);
    EXPECT_THAT(again.findings, testing::Each(HasSubstr("not properly aligned")));

    ImageBytes rebuilt = image_with_too_many_snapshots();
    rebuilt.set_refcount(ImageBytes::kData, 0);
    const auto rebuilt_disk = make_disk(rebuilt);
    ASSERT_TRUE(check_disk(rebuilt_disk, RepairMode::kAll).result.ok());
    expect_clean(check_disk(rebuilt_disk));
  });
}

// --- images that other programs made --------------------------------------------------------------------------------

/// A compressed file of tests/data; empty when it cannot be unpacked.
std::vector<std::byte> unpack(const std::string& name) {
  const std::string command = fmt::format("xz -dc '{}/qcow2/{}' 2>/dev/null", COIMG_TEST_DATA, name);
  std::vector<std::byte> bytes;
  std::FILE* const pipe = ::popen(command.c_str(), "r");
  if (!pipe) return bytes;
  std::vector<std::byte> piece(1 << 16);
  while (const size_t count = std::fread(piece.data(), 1, piece.size(), pipe)) {
    bytes.insert(bytes.end(), piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(count));
  }
  ::pclose(pipe);
  return bytes;
}

TEST(Repair, OfDamagedImagesEndsAsOtherProgramsSay) {
  std::ifstream stream(std::string(COIMG_TEST_DATA) + "/qcow2/manifest.json");
  ASSERT_TRUE(stream.is_open());
  const auto manifest = nlohmann::json::parse(stream);
  if (unpack("leak.qcow2.xz").empty()) GTEST_SKIP() << "needs xz";
  int repairs = 0;
  run_in_main_loop([&]() coroutine_fn {
    for (const auto& fixture : manifest["fixtures"]) {
      if (fixture["kind"] != "damaged") continue;
      for (const RepairMode mode : {RepairMode::kLeaks, RepairMode::kAll}) {
        const auto& expected = fixture["repair"][mode == RepairMode::kAll ? "all" : "leaks"];
        SCOPED_TRACE(
            fmt::format("{}, -r {}", std::string(fixture["file"]), mode == RepairMode::kAll ? "all" : "leaks"));
        const auto disk = std::make_shared<MemDisk>(unpack(fixture["stored"]));
        be64 features_before, features;
        std::memcpy(static_cast<void*>(&features_before), disk->bytes.data() + 72, sizeof features_before);
        const bool same_content = fixture.contains("sha256") && fixture["sha256"] == expected["sha256_after"];
        const auto content = same_content ? guest_content(disk) : std::vector<std::byte>();

        const bool refused = expected["exit_code"] == 1;
        EXPECT_EQ(check_disk(disk, mode).result.ok(), !refused);
        const Outcome after = check_disk(disk);
        ASSERT_TRUE(after.result.ok());
        const auto& counts = expected["after"]["json"];
        EXPECT_EQ(after.result->corruptions, counts.value("corruptions", 0u));
        EXPECT_EQ(after.result->leaks, counts.value("leaks", 0u));
        EXPECT_EQ(after.result->check_errors, counts.value("check-errors", 0u));
        EXPECT_EQ(after.result->allocated_clusters, counts.value("allocated-clusters", 0u));
        EXPECT_EQ(after.result->fragmented_clusters, counts.value("fragmented-clusters", 0u));
        std::memcpy(static_cast<void*>(&features), disk->bytes.data() + 72, sizeof features);
        // A repair that was refused must not make the image look sound: there we differ from qemu-img.
        EXPECT_EQ(features,
                  refused ? uint64_t{features_before} : expected["incompatible_features_after"].get<uint64_t>());
        if (same_content) {
          EXPECT_EQ(guest_content(disk), content);
        }
        ++repairs;
      }
    }
  });
  EXPECT_GT(repairs, 20);
}

// --- failures on the way --------------------------------------------------------------------------------------------

/// Images whose repair takes the different ways.
std::vector<std::pair<std::string, ImageBytes>> images_to_repair() {
  std::vector<std::pair<std::string, ImageBytes>> images;
  const auto add = [&](const char* name, bool snapshot, const std::function<void(ImageBytes&)>& inflict) {
    ImageBytes image({.snapshot = snapshot});
    inflict(image);
    images.emplace_back(name, std::move(image));
  };
  add("refcounts in place", false, [](ImageBytes& i) {
    i.set_refcount(7, 3);
    i.put64(i.l2_entry_at(20), i.get64(i.l2_entry_at(3)));
  });
  add("rebuild", true, [](ImageBytes& i) {
    i.set_refcount(8, 0);
    i.set_refcount(9, 7);
  });
  add("zero cluster", false, [](ImageBytes& i) { i.put64(i.l2_entry_at(60), i.offset_of(5) + 513); });
  return images;
}

TEST(Repair, WhicheverIoFailsTheImageCanBeRepairedAfterwards) {
  run_in_main_loop([]() coroutine_fn {
    for (const auto& [name, image] : images_to_repair()) {
      const bool comparable = name != "zero cluster";
      const auto content = comparable ? guest_content(make_disk(image)) : std::vector<std::byte>();
      for (uint64_t nth = 1;; ++nth) {
        SCOPED_TRACE(fmt::format("{}, I/O number {} fails", name, nth));
        const auto disk = make_disk(image);
        auto file = make_fault_node(disk);
        FaultDriver& faults = fault_driver(*file);
        faults.fail_nth_io(nth, EIO);
        bool fired = false;
        {
          static const std::unique_ptr<DriverType> type = make_qcow2_driver_type();
          auto node = open_format(*type, std::move(file), {.writable = true, .check = true});
          if (node.ok()) {
            SilentReporter silent;
            const auto result = (*node)->co_check({.repair = RepairMode::kAll, .reporter = &silent});
            fired = faults.fired();
            if (fired) {
              EXPECT_TRUE(!result.ok() || result->check_errors > 0) << "a failure was not reported";
            }
            (void)(*node)->co_close().ok();
          } else {
            fired = true;  // while opening
          }
        }
        const Outcome repaired = check_disk(disk, RepairMode::kAll);
        ASSERT_TRUE(repaired.result.ok()) << repaired.result.error().message();
        expect_clean(check_disk(disk));
        if (comparable) {
          EXPECT_EQ(guest_content(disk), content);
        }
        if (!fired) {
          EXPECT_GT(nth, 5u) << "the repair did no I/O, so nothing was tested";
          break;
        }
      }
    }
  });
}

TEST(Repair, APowerLossAtAnyPointLeavesWhatARepairMends) {
  run_in_main_loop([]() coroutine_fn {
    static const std::unique_ptr<DriverType> type = make_qcow2_driver_type();
    for (const auto& [name, image] : images_to_repair()) {
      const bool comparable = name != "zero cluster";
      const auto content = comparable ? guest_content(make_disk(image)) : std::vector<std::byte>();
      const auto disk = make_disk(image);
      auto file = make_fault_node(disk);
      const FaultDriver& faults = fault_driver(*file);
      auto node = open_format(*type, std::move(file), {.writable = true, .check = true});
      ASSERT_TRUE(node.ok());
      SilentReporter silent;
      ASSERT_TRUE((*node)->co_check({.repair = RepairMode::kAll, .reporter = &silent}).ok());
      for (size_t entries = 0; entries <= faults.log().size(); ++entries) {
        for (uint64_t seed = 0; seed < 4; ++seed) {
          SCOPED_TRACE(fmt::format("{}, power loss behind I/O {}, seed {}", name, entries, seed));
          const auto after = std::make_shared<MemDisk>(faults.bytes_after_crash(entries, seed));
          const Outcome repaired = check_disk(after, RepairMode::kAll);
          ASSERT_TRUE(repaired.result.ok()) << repaired.result.error().message();
          expect_clean(check_disk(after));
          if (seed == 0) expect_peer_agrees(after);
          if (comparable) {
            EXPECT_EQ(guest_content(after), content);
          }
        }
      }
      EXPECT_TRUE((*node)->co_close().ok());
    }
  });
}

// Bits of all tables and of the header flip, one at a time: a finding, an error or nothing, but no crash, and a repair
// that says it left nothing wrong is right.
TEST(Check, CanBeStoppedUnlessItRepairs) {
  run_in_main_loop([]() coroutine_fn {
    const auto type = make_qcow2_driver_type();
    auto node = open_format(*type, make_mem_node(make_disk(ImageBytes({})), {}, {.writable = true}),
                            {.writable = true, .check = true});
    ASSERT_TRUE(node.ok());
    const auto stop = [] { return true; };
    EXPECT_EQ((*node)->co_check({.should_stop = stop}).error().errnum(), ECANCELED);
    EXPECT_TRUE((*node)->co_check({.repair = RepairMode::kAll, .should_stop = stop}).ok());
    EXPECT_TRUE((*node)->co_close().ok());
  });
}

TEST(Repair, AnyFlippedBitIsSurvived) {
  run_in_main_loop([]() coroutine_fn {
    const ImageBytes image({.cluster_bits = 9, .snapshot = true});
    const auto flip_and_check = [&](uint64_t byte, int bit) coroutine_fn {
      SCOPED_TRACE(fmt::format("bit {} of byte {:#x}", bit, byte));
      const auto disk = make_disk(image);
      disk->bytes[byte] ^= static_cast<std::byte>(1 << bit);
      const Outcome repaired = check_disk(disk, RepairMode::kAll);
      if (!repaired.result.ok()) return;
      const Outcome again = check_disk(disk);
      if (!again.result.ok()) {
        EXPECT_NE(repaired.result->corruptions, 0u) << again.result.error().message();
        return;
      }
      EXPECT_EQ(again.result->corruptions, repaired.result->corruptions);
      EXPECT_EQ(again.result->leaks, repaired.result->leaks);
    };
    for (uint64_t byte = 0; byte < image.bytes.size(); ++byte) {
      const uint64_t cluster = byte >> 9;
      if (cluster >= ImageBytes::kData && cluster < ImageBytes::kSnapshots) continue;
      if (byte % 512 >= 128 && byte % 7 != 0) continue;  // of what is mostly zeros, a sample is enough
      if (COIMG_TSAN) {
        if (byte % 8 == 0) flip_and_check(byte, static_cast<int>(byte / 8 % 8));  // ten times slower, same threads
        continue;
      }
      for (int bit = 0; bit < 8; ++bit) flip_and_check(byte, bit);
    }
  });
}

}  // namespace
}  // namespace coimg::qcow2
