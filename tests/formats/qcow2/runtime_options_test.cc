// What the user may ask of an open image: which metadata is guarded, and what is given back to the host.
#include "formats/qcow2/runtime_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coroutine/main_loop.h"
#include "tests/formats/qcow2/image_bytes.h"
#include "tests/formats/qcow2/image_fixture.h"

namespace coimg::qcow2 {
namespace {

using ::testing::HasSubstr;
using Settings = std::vector<std::pair<std::string, std::string>>;

constexpr uint64_t kCluster = 4096;

Options options_of(const Settings& settings) {
  Options options;
  for (const auto& [name, value] : settings) options.set(name, value);
  return options;
}

std::unique_ptr<BlockNode> open_with(const std::shared_ptr<MemDisk>& disk, const Settings& settings,
                                     OpenFlags flags = {.writable = true}) coroutine_fn {
  auto image = open_format(qcow2_type(), make_mem_node(disk), flags, options_of(settings));
  EXPECT_TRUE(image.ok()) << image.error().message();
  return image.ok() ? *std::move(image) : nullptr;
}

TEST(RuntimeOptions, AreRefusedInTheirWords) {
  const auto refused = [](const Settings& settings) {
    Options options = options_of(settings);
    const auto taken = take_runtime_options(options, {});
    return taken.ok() ? "" : taken.error().message();
  };
  EXPECT_EQ(refused({{"overlap-check", "foo"}}),
            "Unsupported value 'foo' for qcow2 option 'overlap-check'. Allowed are any of the following: none, "
            "constant, cached, all");
  EXPECT_EQ(refused({{"overlap-check", "all"}, {"overlap-check.template", "none"}}),
            "Conflicting values for qcow2 options 'overlap-check' ('all') and 'overlap-check.template' ('none')");
  EXPECT_THAT(refused({{"overlap-check.active-l1", "maybe"}}), HasSubstr("expects 'on' or 'off'"));
  EXPECT_THAT(refused({{"pass-discard-other", "maybe"}}), HasSubstr("expects 'on' or 'off'"));
  Options unknown = options_of({{"discard-no-unref", "on"}, {"overlap-check.foo", "on"}});
  ASSERT_TRUE(take_runtime_options(unknown, {}).ok());
  EXPECT_EQ(unknown.values().size(), 2u) << "left for the caller, who refuses them";
}

TEST(RuntimeOptions, SayWhichMetadataIsGuarded) {
  // Guest cluster 1 has been damaged to lie in metadata, and is written.
  const auto writes_to = [](uint64_t host_cluster, bool snapshot, const Settings& settings) coroutine_fn {
    ImageBytes image({.snapshot = snapshot});
    image.put64(image.l2_entry_at(1), image.offset_of(host_cluster) | kEntryCopied);
    const auto disk = std::make_shared<MemDisk>(image.bytes);
    if (snapshot) {  // the tables are not shared any more, so that the cluster is written in place
      image.put64(image.offset_of(ImageBytes::kL1), image.offset_of(ImageBytes::kL2) | kEntryCopied);
      image.put64(image.offset_of(ImageBytes::kSnapshotL1), image.offset_of(ImageBytes::kData + 3));
      disk->bytes = image.bytes;
    }
    const auto node = open_with(disk, settings);
    const bool written = node->co_pwrite(kCluster, std::vector<std::byte>(kCluster)).ok();
    (void)node->co_close();
    return written;
  };
  run_in_main_loop([&]() coroutine_fn {
    for (const auto& [cluster, name] :
         {std::pair{ImageBytes::kTable, "overlap-check.refcount-table"},
          std::pair{ImageBytes::kL1, "overlap-check.active-l1"}, std::pair{ImageBytes::kL2, "overlap-check.active-l2"},
          std::pair{ImageBytes::kBlock, "overlap-check.refcount-block"}}) {
      SCOPED_TRACE(name);
      const bool constant = cluster == ImageBytes::kTable || cluster == ImageBytes::kL1;
      EXPECT_FALSE(writes_to(cluster, false, {}));
      EXPECT_FALSE(writes_to(cluster, false, {{"overlap-check", "all"}}));
      EXPECT_TRUE(writes_to(cluster, false, {{"overlap-check.template", "none"}}));
      EXPECT_EQ(writes_to(cluster, false, {{"overlap-check", "constant"}}), !constant);
      EXPECT_TRUE(writes_to(cluster, false, {{name, "off"}}));
      EXPECT_FALSE(writes_to(cluster, false, {{"overlap-check", "none"}, {name, "on"}}));
    }
    constexpr uint64_t kInactiveL2 = ImageBytes::kData + 3;
    EXPECT_TRUE(writes_to(kInactiveL2, true, {}));
    EXPECT_FALSE(writes_to(kInactiveL2, true, {{"overlap-check", "all"}}));
    EXPECT_FALSE(writes_to(kInactiveL2, true, {{"overlap-check", "none"}, {"overlap-check.inactive-l2", "on"}}));
    EXPECT_FALSE(writes_to(ImageBytes::kSnapshotL1, true, {}));
    EXPECT_TRUE(writes_to(ImageBytes::kSnapshotL1, true, {{"overlap-check.inactive-l1", "off"}}));
    EXPECT_FALSE(writes_to(ImageBytes::kSnapshots, true, {{"overlap-check", "constant"}}));
    EXPECT_TRUE(writes_to(ImageBytes::kSnapshots, true, {{"overlap-check.snapshot-table", "off"}}));
  });
}

TEST(RuntimeOptions, OfTheGuardFollowSnapshots) {
  run_in_main_loop([]() coroutine_fn {
    const auto disk = create_image({.cluster_size = kCluster}, 64 * kCluster);
    const auto image = open_with(disk, {{"overlap-check", "all"}});
    const std::vector<std::byte> data(64 * kCluster, std::byte{1});
    for (const char* name : {"a", "b"}) {
      ASSERT_TRUE(image->co_pwrite(0, data).ok());
      ASSERT_TRUE(image->co_create_snapshot(name).ok());
    }
    ASSERT_TRUE(image->co_pwrite(0, data).ok());
    ASSERT_TRUE(image->co_apply_snapshot({.id = {}, .name = "a"}).ok());
    ASSERT_TRUE(image->co_pwrite(0, data).ok());
    for (const char* name : {"a", "b"}) ASSERT_TRUE(image->co_delete_snapshot({.id = {}, .name = name}).ok());
    ASSERT_TRUE(image->co_pwrite(0, data).ok());
    EXPECT_EQ(read_all(*image), data);
    expect_sound(*image);
    ASSERT_TRUE(image->co_close().ok());
  });
}

TEST(RuntimeOptions, SayWhichSpaceIsGivenBack) {
  const auto discards_of = [](const Settings& settings, const std::function<void(BlockNode&)>& change) coroutine_fn {
    const auto disk = create_image({.cluster_size = kCluster}, 64 * kCluster);
    const auto image = open_with(disk, settings, {.writable = true, .discard_unmap = true});
    EXPECT_TRUE(image->co_pwrite(0, std::vector<std::byte>(16 * kCluster, std::byte{1})).ok());
    EXPECT_TRUE(image->co_create_snapshot("s").ok());
    EXPECT_TRUE(image->co_pwrite(0, std::vector<std::byte>(16 * kCluster, std::byte{2})).ok());
    EXPECT_TRUE(image->co_flush().ok());
    const uint64_t before = mem_driver(*image->file()).counters().discards;
    change(*image);
    EXPECT_TRUE(image->co_flush().ok());
    const uint64_t discards = mem_driver(*image->file()).counters().discards - before;
    EXPECT_TRUE(image->co_close().ok());
    return discards;
  };
  run_in_main_loop([&]() coroutine_fn {
    const auto discard = [](BlockNode& image) coroutine_fn { EXPECT_TRUE(image.co_pdiscard(0, 4 * kCluster).ok()); };
    EXPECT_GT(discards_of({}, discard), 0u);
    EXPECT_EQ(discards_of({{"pass-discard-request", "off"}}, discard), 0u);
    const auto remove = [](BlockNode& image)
                            coroutine_fn { EXPECT_TRUE(image.co_delete_snapshot({.id = {}, .name = "s"}).ok()); };
    EXPECT_GT(discards_of({}, remove), 0u);
    EXPECT_EQ(discards_of({{"pass-discard-snapshot", "off"}}, remove), 0u);
    EXPECT_GT(discards_of({{"pass-discard-snapshot", "off"}, {"pass-discard-other", "on"}}, remove), 0u);
    const auto grow = [](BlockNode& image) coroutine_fn { EXPECT_TRUE(image.co_truncate(uint64_t{1} << 30).ok()); };
    EXPECT_EQ(discards_of({}, grow), 0u);
    EXPECT_GT(discards_of({{"pass-discard-other", "on"}}, grow), 0u);
  });
}

}  // namespace
}  // namespace coimg::qcow2
