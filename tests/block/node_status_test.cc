// Tests block/node_status.cc: status of a layer, and of chains of layers.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "block/node.h"
#include "block/util/math.h"
#include "coroutine/main_loop.h"
#include "formats/raw.h"
#include "tests/support/mem_driver.h"

namespace coimg {
namespace {

constexpr uint64_t kCluster = 4096;

class LayerType final : public DriverType {
 public:
  std::string_view name() const override { return "layer"; }
  DriverKind kind() const override { return DriverKind::kFormat; }
  Result<std::unique_ptr<BlockDriver>> open(OpenArgs) const coroutine_fn override { return Error::from_errno(ENOTSUP); }
};
const LayerType layer_type;

/// A format that only has a status: 'd' data, 'a' data for which the file is to be asked, 'z' zero, '.' unallocated;
/// a letter a cluster. Data of cluster n lies at n clusters of the file.
class LayerDriver final : public BlockDriver {
 public:
  explicit LayerDriver(std::string clusters) : clusters_(std::move(clusters)) {}
  const DriverType& type() const override { return layer_type; }
  uint64_t length() const override { return clusters_.size() * kCluster; }
  Result<void> preadv(uint64_t, const IoVector&) coroutine_fn override { return Error::from_errno(ENOTSUP); }
  Result<BlockStatus> block_status(uint64_t offset, uint64_t bytes, bool) coroutine_fn override {
    EXPECT_TRUE(bytes > 0 && range_within(offset, bytes, length()));
    const char kind = clusters_[offset / kCluster];
    const size_t end = std::min(clusters_.find_first_not_of(kind, offset / kCluster), clusters_.size());
    BlockStatus status{.bytes = std::min(bytes, end * kCluster - offset)};
    status.allocated = kind != '.';
    status.data = kind == 'd' || kind == 'a';
    status.zero = kind == 'z';
    status.ask_file = kind == 'a';
    if (status.data) status.host_offset = offset;
    return status;
  }

 private:
  std::string clusters_;
};

std::unique_ptr<BlockNode> layer(std::string clusters, std::unique_ptr<BlockNode> backing = nullptr) {
  auto node = std::make_unique<BlockNode>("layer", OpenFlags{});
  node->set_driver(std::make_unique<LayerDriver>(std::move(clusters)));
  node->set_backing(std::move(backing));
  return node;
}

void close(BlockNode& node) coroutine_fn { EXPECT_TRUE(node.co_close().ok()); }

/// The whole chain in words: "0d2" is two clusters of data in the top layer, "1-1" one cluster that is zero as nobody
/// has it, seen in the first backing file, "0?1" one that `base` has to be asked for.
std::string describe(BlockNode& node, const BlockNode* base = nullptr) coroutine_fn {
  std::string text;
  for (uint64_t offset = 0; offset < node.length();) {
    auto found = node.co_chain_status(offset, node.length() - offset, base);
    if (!found.ok()) return found.error().message();
    const BlockStatus& status = found->status;
    if (status.bytes == 0) return text + " nothing";
    if (!text.empty()) text += ' ';
    text += std::to_string(found->depth);
    text += status.data ? (status.zero ? 'Z' : 'd') : status.allocated ? 'z' : status.zero ? '-' : '?';
    text += std::to_string(status.bytes / kCluster);
    EXPECT_TRUE(is_aligned(status.bytes, kCluster));
    const BlockNode* expected_layer = &node;
    for (unsigned i = 0; i < found->depth; ++i) expected_layer = expected_layer->backing();
    EXPECT_EQ(found->layer, expected_layer);
    offset += status.bytes;
  }
  return text;
}

TEST(ChainStatus, OfOneLayer) {
  run_in_main_loop([&]() coroutine_fn {
    auto node = layer("dd.z..");
    EXPECT_EQ(describe(*node), "0d2 0-1 0z1 0-2");
    close(*node);
  });
}

TEST(ChainStatus, TheFirstLayerThatHasTheRangeDecides) {
  run_in_main_loop([&]() coroutine_fn {
    auto node = layer("d.z...", layer(".ddd..", layer("dddd.z")));
    EXPECT_EQ(describe(*node), "0d1 1d1 0z1 1d1 2-1 2z1");
    close(*node);
  });
}

TEST(ChainStatus, BehindTheEndOfItsBackingFileALayerHidesWhatLiesDeeper) {
  run_in_main_loop([&]() coroutine_fn {
    auto node = layer("......", layer("d.", layer("dddddd")));
    EXPECT_EQ(describe(*node), "1d1 2d1 0-4");
    close(*node);
    auto shorter = layer("......", layer("....", layer("d")));
    EXPECT_EQ(describe(*shorter), "2d1 1-3 0-2");
    close(*shorter);
  });
}

TEST(ChainStatus, StopsAboveTheBase) {
  run_in_main_loop([&]() coroutine_fn {
    auto node = layer("d.z...", layer(".d....", layer("dddd")));
    const BlockNode* middle = node->backing();
    EXPECT_EQ(describe(*node, middle), "0d1 0?1 0z1 0?3");
    EXPECT_EQ(describe(*node, middle->backing()), "0d1 1d1 0z1 1?1 1-2");
    close(*node);
  });
}

TEST(ChainStatus, IsClippedToTheLength) {
  run_in_main_loop([&]() coroutine_fn {
    auto node = layer("ddd");
    auto found = node->co_chain_status(kCluster, UINT64_MAX);
    ASSERT_TRUE(found.ok());
    EXPECT_EQ(found->status.bytes, 2 * kCluster);
    EXPECT_EQ(node->co_chain_status(3 * kCluster, 1)->status.bytes, 0u);
    EXPECT_EQ(node->co_chain_status(0, 0)->status.bytes, 0u);
    EXPECT_EQ(node->co_chain_status(3 * kCluster + 1, 1).error().errnum(), EINVAL);
    close(*node);
  });
}

TEST(BlockStatus, AsksTheFileWhetherDataIsAHole) {
  run_in_main_loop([&]() coroutine_fn {
    // The file: data, hole, hole, and then it ends.
    auto content = pattern(3 * kCluster);
    std::fill(content.begin() + kCluster, content.end(), std::byte{0});
    auto node = layer("aaaadd");
    auto file = make_mem_node(content);
    const BlockNode* file_node = file.get();
    node->set_file(std::move(file));
    EXPECT_EQ(describe(*node), "0d1 0Z2 0Z1 0d2");

    auto fast = node->co_block_status(0, node->length(), false);
    ASSERT_TRUE(fast.ok());
    EXPECT_EQ(fast->bytes, 4 * kCluster) << "the file must not be asked";
    EXPECT_EQ(fast->file, file_node);
    close(*node);
  });
}

TEST(BlockStatus, OfAFileIsZeroBeyondItsEnd) {
  run_in_main_loop([&]() coroutine_fn {
    auto node = make_mem_node(pattern(1000));
    auto inside = node->co_block_status(10, 5000);
    ASSERT_TRUE(inside.ok());
    EXPECT_EQ(inside->bytes, 990u);
    EXPECT_TRUE(inside->data);
    EXPECT_EQ(inside->file, node.get());
    auto beyond = node->co_block_status(1000, 5000);
    ASSERT_TRUE(beyond.ok());
    EXPECT_EQ(beyond->bytes, 5000u);
    EXPECT_TRUE(beyond->zero && beyond->allocated && !beyond->data);
    EXPECT_EQ(beyond->host_offset, 1000u);
    close(*node);
  });
}

}  // namespace
}  // namespace coimg
