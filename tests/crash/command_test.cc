// The power goes while a command changes an image. All its writes and flushes are recorded on their way to the kernel;
// whatever of them has reached the disk, the image must open, be free of corruptions, and show each sector as it was
// before the command or as it is after.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <random>

#include "block/open.h"
#include "block/util/math.h"
#include "coroutine/main_loop.h"
#include "formats/registry.h"
#include "tests/crash/recording.h"
#include "tests/crash/suite.h"
#include "tests/support/mem_driver.h"

namespace coimg::crash {
namespace {

using Bytes = std::vector<std::byte>;
using Files = std::map<std::string, Bytes>;

constexpr size_t kCluster = 4096;
constexpr size_t kDiskBytes = 75 * kCluster + kSectorSize;
constexpr size_t kRefcountBlock = 2 * kCluster;  ///< of an image that coimg has made

using Command = std::vector<std::string>;

enum class DataFile { kNone, kPlain, kRaw };
constexpr const char* kDataFileName = "a.data";

enum class Damage { kNone, kLeak, kRefcountsOfZero };

struct Scenario {
  std::string name;
  std::vector<Command> setup;  ///< coimg's arguments
  Command command;
  std::string image = "a.qcow2";
  CopiedFlags copied_flags = CopiedFlags::kRight;
  Damage damage = Damage::kNone;  ///< done to the image after the set-up; a repair puts it right
  DataFile data_file = DataFile::kNone;

  friend std::ostream& operator<<(std::ostream& out, const Scenario& scenario) { return out << scenario.name; }
};

const DriverRegistry& registry() {
  static const auto drivers = [] {
    auto made = std::make_unique<DriverRegistry>();
    register_builtin_drivers(*made);
    return made;
  }();
  return *drivers;
}

/// Data, holes, and bytes that compress, told apart by `seed`.
Bytes some_disk(uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes disk(kDiskBytes);
  for (size_t at = 0; at < disk.size(); at += kCluster) {
    const size_t bytes = std::min(kCluster, disk.size() - at);
    const uint64_t kind = random() % 4;
    if (kind == 0) continue;
    for (size_t i = 0; i < bytes; ++i) disk[at + i] = std::byte(kind == 1 ? 'a' + random() % 3 : random() | 1);
  }
  return disk;
}

class CommandCrash : public testing::TestWithParam<Scenario> {
 protected:
  void coimg(Command arguments) {
    arguments.insert(arguments.begin(), COIMG_PROGRAM);
    const Outcome outcome = run_program(directory_.path(), arguments);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  }

  void damage() {
    const Scenario& scenario = GetParam();
    if (scenario.damage == Damage::kNone) return;
    Bytes image = directory_.read(scenario.image);
    const auto refcount_low_byte = [&](size_t cluster) -> std::byte& {
      return image[kRefcountBlock + 2 * cluster + 1];
    };
    const size_t clusters = image.size() / kCluster;
    for (size_t cluster = clusters / 2; cluster < clusters; cluster += 3) {
      refcount_low_byte(cluster) = std::byte(scenario.damage == Damage::kLeak ? 2 : 0);
    }
    directory_.write(scenario.image, image);
  }

  [[nodiscard]] Files files() const {
    Files all;
    for (const auto& entry : std::filesystem::directory_iterator(directory_.path())) {
      all[entry.path().filename()] = directory_.read(entry.path().filename());
    }
    return all;
  }

  static std::string format() { return GetParam().image.ends_with(".add-cow") ? "add-cow" : "qcow2"; }

  /// What a guest sees of the image, through its chain.
  Bytes content(const TemporaryDirectory& directory) coroutine_fn {
    const std::string path = directory.path() + "/" + GetParam().image;
    OpenRequest request{.name = {.text = path}, .format = format(), .flags = {.writable = false}};
    if (GetParam().data_file != DataFile::kNone) {  // it is not looked for beside the image
      request.format.clear();
      request.name.text = fmt::format(
          R"(json:{{"driver": "qcow2", "file": {{"driver": "file", "filename": "{}"}}, "data-file": {{"driver": "file", "filename": "{}"}}}})",
          path, directory.path() + "/" + kDataFileName);
    }
    auto image = open_image(registry(), request);
    EXPECT_TRUE(image.ok()) << image.error().message();
    if (!image.ok()) return {};
    Bytes seen = read_all(**image);
    EXPECT_TRUE((*image)->co_close().ok());
    return seen;
  }

  void repair_and_check(const TemporaryDirectory& directory) const {
    const Scenario& scenario = GetParam();
    const std::string path = directory.path() + "/" + scenario.image;
    const auto check = [&](const Command& extra) {
      Command command{COIMG_PROGRAM, "check", "-q", "-f", format()};
      command.insert(command.end(), extra.begin(), extra.end());
      command.push_back(path);
      return run_program(directory.path(), command);
    };
    const Outcome first = check({});
    const bool damage_is_allowed =
        scenario.damage != Damage::kNone || scenario.copied_flags == CopiedFlags::kMayBeOff || is_dirty_file(directory);
    constexpr int kLeaks = 3;
    if (!damage_is_allowed) {
      EXPECT_TRUE(first.exit_code == 0 || first.exit_code == kLeaks) << first.exit_code << ": " << first.output;
    }
    const Outcome repaired = check({"-r", "all"});
    EXPECT_EQ(repaired.exit_code, 0) << repaired.output;
  }

  [[nodiscard]] bool is_dirty_file(const TemporaryDirectory& directory) const {
    constexpr size_t kVersionByte = 7, kLastFeatureByte = 79;
    const Bytes image = directory.read(GetParam().image);
    return image.size() > kLastFeatureByte && image[kVersionByte] == std::byte{3} &&
           (image[kLastFeatureByte] & std::byte{1}) != std::byte{0};
  }

  static void expect_old_or_new(const Bytes& seen, const Bytes& before, const Bytes& after) {
    ASSERT_TRUE(seen.size() == before.size() || seen.size() == after.size()) << seen.size();
    const auto same = [&](const Bytes& other, size_t at) {
      // A disk that has not grown yet, or has shrunk, shows nothing there.
      if (at >= other.size())
        return std::ranges::all_of(sector(seen, at), [](std::byte b) { return b == std::byte{0}; });
      return std::ranges::equal(sector(seen, at), sector(other, at));
    };
    for (size_t at = 0; at < seen.size(); at += kSectorSize) {
      ASSERT_TRUE(same(before, at) || same(after, at)) << "sector at byte " << at << " is neither old nor new";
    }
  }
  static std::span<const std::byte> sector(const Bytes& bytes, size_t at) {
    return std::span(bytes).subspan(at, std::min<size_t>(kSectorSize, bytes.size() - at));
  }

  TemporaryDirectory directory_;
};

TEST_P(CommandCrash, LeavesASoundImageWithOldOrNewContent) {
  const Scenario& scenario = GetParam();
  const uint64_t seed = crash::seed();
  SCOPED_TRACE(testing::Message() << "COIMG_TEST_SEED=" << seed);
  directory_.write("one.raw", some_disk(seed));
  directory_.write("two.raw", some_disk(seed + 1));
  for (const Command& command : scenario.setup) ASSERT_NO_FATAL_FAILURE(coimg(command));
  damage();
  const Files before = files();
  Bytes old_content, new_content;
  run_in_main_loop([&]() coroutine_fn { old_content = content(directory_); });

  const TemporaryDirectory log;
  const Outcome outcome = run_recorded(directory_.path(), scenario.command, log.path() + "/log");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  run_in_main_loop([&]() coroutine_fn { new_content = content(directory_); });
  auto logs = read_recording(log.path() + "/log", before);
  logs.erase(".");
  ASSERT_FALSE(logs.empty());

  // The recording has to explain what is there now.
  uint64_t end = 0;
  for (const auto& [name, writes] : logs) {
    EXPECT_EQ(writes.bytes_after_crash(writes.entries().size(), [](size_t, uint64_t) { return true; }),
              directory_.read(name))
        << name;
    if (!writes.entries().empty()) end = std::max(end, writes.entries().back().time);
  }

  std::mt19937_64 random(seed);
  const size_t images = images_per_case();
  const size_t ways = std::max<size_t>(images / (end + 1), 1);
  const size_t distance = std::max<size_t>((end + 1) / images, 1);
  const TemporaryDirectory crashed;
  for (const auto& [name, bytes] : before) crashed.write(name, bytes);
  for (uint64_t time = random() % distance; time <= end && !HasFailure(); time += distance) {
    for (size_t way = 0; way < ways && !HasFailure(); ++way) {
      std::string what;
      std::vector<NamedFile> seen_by_qemu;
      Files after_crash = before;
      for (const auto& [name, writes] : logs) {
        const auto losses = power_losses(writes, writes.entries_until(time), ways, random());
        const PowerLoss& loss = losses[way % losses.size()];
        after_crash[name] = writes.bytes_after_crash(loss.count, loss.survives);
        what += name + ": " + loss.what + "; ";
      }
      SCOPED_TRACE(what);
      count_image();
      for (const auto& [name, bytes] : after_crash) crashed.write(name, bytes);
      Bytes seen;
      run_in_main_loop([&]() coroutine_fn { seen = content(crashed); });
      expect_old_or_new(seen, old_content, new_content);
      if (scenario.data_file == DataFile::kRaw) {  // who reads it as raw sees no less
        Bytes raw = after_crash[kDataFileName];
        raw.resize(seen.size());
        expect_old_or_new(raw, old_content, new_content);
      }
      if (format() == "qcow2") {
        seen_by_qemu.push_back({scenario.image, after_crash[scenario.image]});
        for (const auto& [name, bytes] : after_crash) {
          if (name != scenario.image) seen_by_qemu.push_back({name, bytes});
        }
        if (scenario.damage == Damage::kRefcountsOfZero) {
          expect_repairable_for_qemu(seen_by_qemu);
        } else {
          expect_sound_for_qemu(seen_by_qemu, scenario.copied_flags);
        }
      }
      repair_and_check(crashed);
      if (scenario.damage != Damage::kNone) {
        const Bytes repaired = crashed.read(scenario.image);
        seen_by_qemu.front().bytes = repaired;
        expect_sound_for_qemu(seen_by_qemu);
      }
      run_in_main_loop([&]() coroutine_fn { seen = content(crashed); });
      expect_old_or_new(seen, old_content, new_content);
    }
  }
}

Command convert(const std::string& from, const std::string& to, const std::string& options = "cluster_size=4096") {
  return {"convert", "-f", "raw", "-O", "qcow2", "-o", options, from, to};
}
/// An image with its data in another file, where zero clusters hide old data; two.raw is to be written to it.
std::vector<Command> with_data_file(const std::string& options) {
  return {convert("one.raw", "a.qcow2", "cluster_size=4096,data_file=a.data" + options),
          {"io", "-f", "qcow2", "-c", "write -z 0 200k", "a.qcow2"}};
}
const Command kOverwrite{"convert", "-n", "-t", "writeback", "-f", "raw", "-O", "qcow2", "two.raw", "a.qcow2"};
const Command kSnapshot{"snapshot", "-c", "s", "a.qcow2"};
const Command kAddBitmap{"bitmap", "--add", "-g", "4096", "a.qcow2", "b"};
Command overlay(const std::string& base, const std::string& top) {
  return {"create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", "-b", base, "-F", "qcow2", top};
}
/// base.qcow2 has one.raw, a.qcow2 above it has two.raw.
const std::vector<Command> kChain{
    convert("one.raw", "base.qcow2"),
    overlay("base.qcow2", "a.qcow2"),
    {"convert", "-n", "-t", "writeback", "-f", "raw", "-O", "qcow2", "two.raw", "a.qcow2"}};
std::vector<Command> chain_with_other_base() {
  std::vector<Command> commands{convert("one.raw", "base.qcow2"), overlay("base.qcow2", "a.qcow2"),
                                convert("two.raw", "other.qcow2")};
  return commands;
}
constexpr CopiedFlags kOff = CopiedFlags::kMayBeOff, kRight = CopiedFlags::kRight;

const std::vector<Command> kAddCow{{"create", "-q", "-f", "add-cow", "-o", "cluster_size=4096,image_file=a.img", "-b",
                                    "one.raw", "-F", "raw", "a.add-cow"}};
const Command kOverwriteAddCow{"convert", "-n", "-t",      "writeback", "-f",
                               "raw",     "-O", "add-cow", "two.raw",   "a.add-cow"};
std::vector<Command> written_add_cow() {
  std::vector<Command> commands = kAddCow;
  commands.push_back(kOverwriteAddCow);
  return commands;
}

std::vector<Command> written_add_cow_in_part() {
  std::vector<Command> commands = kAddCow;
  commands.push_back({"io", "-f", "add-cow", "-c", "write -P 7 20k 90k", "-c", "write -z 160k 40k", "a.add-cow"});
  return commands;
}

const Scenario kScenarios[] = {
    {"convert_n", {convert("one.raw", "a.qcow2")}, kOverwrite},
    {"convert_n_into_lazy_refcounts",
     {convert("one.raw", "a.qcow2", "cluster_size=4096,lazy_refcounts=on")},
     kOverwrite},
    {"convert_n_above_a_snapshot", {convert("one.raw", "a.qcow2"), kSnapshot}, kOverwrite},
    {"convert_n_compressed",
     {{"create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", "a.qcow2", std::to_string(kDiskBytes)}},
     {"convert", "-n", "-c", "-t", "writeback", "-f", "raw", "-O", "qcow2", "two.raw", "a.qcow2"}},
    {"snapshot_create", {convert("one.raw", "a.qcow2")}, kSnapshot, "a.qcow2", kOff},
    {"snapshot_apply",
     {convert("one.raw", "a.qcow2"), kSnapshot, kOverwrite},
     {"snapshot", "-a", "s", "a.qcow2"},
     "a.qcow2",
     kOff},
    {"snapshot_delete",
     {convert("one.raw", "a.qcow2"), kSnapshot, kOverwrite},
     {"snapshot", "-d", "s", "a.qcow2"},
     "a.qcow2",
     kOff},
    {"bitmap_add", {convert("one.raw", "a.qcow2")}, kAddBitmap},
    {"bitmap_remove", {convert("one.raw", "a.qcow2"), kAddBitmap}, {"bitmap", "--remove", "a.qcow2", "b"}},
    {"bitmap_clear", {convert("one.raw", "a.qcow2"), kAddBitmap, kOverwrite}, {"bitmap", "--clear", "a.qcow2", "b"}},
    {"bitmap_disable", {convert("one.raw", "a.qcow2"), kAddBitmap}, {"bitmap", "--disable", "a.qcow2", "b"}},
    {"bitmap_enable",
     {convert("one.raw", "a.qcow2"), {"bitmap", "--add", "--disable", "-g", "4096", "a.qcow2", "b"}},
     {"bitmap", "--enable", "a.qcow2", "b"}},
    {"bitmap_merge",
     {convert("one.raw", "a.qcow2"), kAddBitmap, kOverwrite, {"bitmap", "--add", "-g", "8192", "a.qcow2", "c"}},
     {"bitmap", "--merge", "b", "a.qcow2", "c"}},
    {"bitmap_merge_from_another_image",
     {convert("one.raw", "a.qcow2"),
      kAddBitmap,
      convert("two.raw", "other.qcow2"),
      {"bitmap", "--add", "-g", "8192", "other.qcow2", "c"},
      {"io", "-f", "qcow2", "-c", "write -P 7 20k 90k", "other.qcow2"}},
     {"bitmap", "--merge", "c", "-b", "other.qcow2", "-F", "qcow2", "a.qcow2", "b"}},
    {"bitmap_recording", {convert("one.raw", "a.qcow2"), kAddBitmap}, kOverwrite},
    {"convert_n_subclusters",
     {convert("one.raw", "a.qcow2", "cluster_size=16k,extended_l2=on")},
     {"convert", "-n", "-t", "writeback", "-f", "raw", "-O", "qcow2", "two.raw", "a.qcow2"}},
    {"convert_n_zstd",
     {{"create", "-q", "-f", "qcow2", "-o", "cluster_size=4096,compression_type=zstd", "a.qcow2",
       std::to_string(kDiskBytes)}},
     {"convert", "-n", "-c", "-t", "writeback", "-f", "raw", "-O", "qcow2", "two.raw", "a.qcow2"}},
    {"resize_grow", {convert("one.raw", "a.qcow2")}, {"resize", "-q", "a.qcow2", "3M"}},
    {"resize_preallocated",
     {convert("one.raw", "a.qcow2")},
     {"resize", "-q", "--preallocation=full", "a.qcow2", "400K"}},
    {"resize_shrink", {convert("one.raw", "a.qcow2")}, {"resize", "-q", "--shrink", "a.qcow2", "100K"}},
    {"commit", kChain, {"commit", "-q", "a.qcow2"}},
    {"commit_seen_from_the_base", kChain, {"commit", "-q", "-d", "a.qcow2"}, "base.qcow2"},
    {"rebase", chain_with_other_base(), {"rebase", "-q", "-b", "other.qcow2", "-F", "qcow2", "a.qcow2"}},
    {"rebase_to_nothing", chain_with_other_base(), {"rebase", "-q", "-b", "", "a.qcow2"}},
    {"rebase_u", chain_with_other_base(), {"rebase", "-q", "-u", "-b", "one.raw", "-F", "raw", "a.qcow2"}},
    {"amend_lazy_refcounts_on", {convert("one.raw", "a.qcow2")}, {"amend", "-q", "-o", "lazy_refcounts=on", "a.qcow2"}},
    {"amend_lazy_refcounts_off",
     {convert("one.raw", "a.qcow2", "cluster_size=4096,lazy_refcounts=on")},
     {"amend", "-q", "-o", "lazy_refcounts=off", "a.qcow2"}},
    {"amend_to_version_2", {convert("one.raw", "a.qcow2")}, {"amend", "-q", "-o", "compat=0.10", "a.qcow2"}},
    {"amend_to_version_3",
     {convert("one.raw", "a.qcow2", "cluster_size=4096,compat=0.10"), kSnapshot},
     {"amend", "-q", "-o", "compat=1.1", "a.qcow2"}},
    {"amend_to_version_2_with_zeros_in_snapshots",
     {convert("one.raw", "base.qcow2"),
      overlay("base.qcow2", "a.qcow2"),
      {"convert", "-n", "-S", "0", "-t", "writeback", "-f", "raw", "-O", "qcow2", "two.raw", "a.qcow2"},
      kSnapshot,
      {"snapshot", "-c", "t", "a.qcow2"},
      kOverwrite},
     {"amend", "-q", "-o", "compat=0.10", "a.qcow2"}},
    {"amend_refcounts_to_64_bits",
     {convert("one.raw", "a.qcow2")},
     {"amend", "-q", "-o", "refcount_bits=64", "a.qcow2"}},
    {"amend_refcounts_to_1_bit", {convert("one.raw", "a.qcow2")}, {"amend", "-q", "-o", "refcount_bits=1", "a.qcow2"}},
    {"amend_size", {convert("one.raw", "a.qcow2")}, {"amend", "-q", "-o", "size=1M", "a.qcow2"}},
    {"check_repairs_leaks",
     {convert("one.raw", "a.qcow2")},
     {"check", "-q", "-r", "leaks", "a.qcow2"},
     "a.qcow2",
     kOff,
     Damage::kLeak},
    {"check_repairs_refcounts",
     {convert("one.raw", "a.qcow2")},
     {"check", "-q", "-r", "all", "a.qcow2"},
     "a.qcow2",
     kOff,
     Damage::kRefcountsOfZero},
    {"data_file_convert_n", with_data_file(""), kOverwrite, "a.qcow2", kRight, Damage::kNone, DataFile::kPlain},
    {"data_file_raw_convert_n", with_data_file(",data_file_raw=on"), kOverwrite, "a.qcow2", kRight, Damage::kNone,
     DataFile::kRaw},
    {"amend_data_file_raw_off",
     with_data_file(",data_file_raw=on"),
     {"amend", "-q", "-o", "data_file_raw=off", "a.qcow2"},
     "a.qcow2",
     kRight,
     Damage::kNone,
     DataFile::kPlain},
    {"amend_data_file",
     with_data_file(""),
     {"amend", "-q", "-o", "data_file=./a.data", "a.qcow2"},
     "a.qcow2",
     kRight,
     Damage::kNone,
     DataFile::kPlain},
    {"data_file_resize_grow",
     with_data_file(""),
     {"resize", "-q", "--preallocation=metadata", "a.qcow2", "400K"},
     "a.qcow2",
     kRight,
     Damage::kNone,
     DataFile::kPlain},
    {"data_file_raw_resize_grow",
     with_data_file(",data_file_raw=on"),
     {"resize", "-q", "a.qcow2", "400K"},
     "a.qcow2",
     kRight,
     Damage::kNone,
     DataFile::kRaw},
    {"data_file_raw_resize_shrink",
     with_data_file(",data_file_raw=on"),
     {"resize", "-q", "--shrink", "a.qcow2", "100K"},
     "a.qcow2",
     kRight,
     Damage::kNone,
     DataFile::kRaw},
    {"add_cow_convert_n", kAddCow, kOverwriteAddCow, "a.add-cow"},
    {"add_cow_convert_n_again",
     written_add_cow(),
     {"convert", "-n", "-t", "writeback", "-f", "raw", "-O", "add-cow", "one.raw", "a.add-cow"},
     "a.add-cow"},
    {"add_cow_resize_grow", written_add_cow(), {"resize", "-q", "a.add-cow", "3M"}, "a.add-cow"},
    {"add_cow_resize_shrink", written_add_cow(), {"resize", "-q", "--shrink", "a.add-cow", "100K"}, "a.add-cow"},
    {"add_cow_rebase", written_add_cow(), {"rebase", "-q", "-b", "two.raw", "-F", "raw", "a.add-cow"}, "a.add-cow"},
    {"add_cow_complete", written_add_cow_in_part(), {"rebase", "-q", "-b", "", "a.add-cow"}, "a.add-cow"},
    {"add_cow_amend", written_add_cow_in_part(), {"amend", "-q", "-o", "image_file=./a.img", "a.add-cow"}, "a.add-cow"},
    {"add_cow_commit", written_add_cow_in_part(), {"commit", "-q", "a.add-cow"}, "a.add-cow"},
};

INSTANTIATE_TEST_SUITE_P(Commands, CommandCrash, testing::ValuesIn(kScenarios),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace coimg::crash
