// Tests cmd/comparison.cc where no two images on a disk can: files that become shorter meanwhile.
#include "cmd/comparison.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "block/util/math.h"
#include "coroutine/main_loop.h"
#include "tests/support/mem_driver.h"
#include "tests/support/vanishing_file.h"

namespace coimg {
namespace {

constexpr uint64_t kBytes = 4 * kMiB;

TEST(ComparisonTest, AFileThatBecomesShorterMeanwhileIsAFailedRead) {
  if (!pages_can_be_mapped()) GTEST_SKIP() << "the file system of /tmp has no reads that do not wait";
  run_in_main_loop([]() coroutine_fn {
    const auto vanishing = make_vanishing_node(kBytes);
    const auto other = make_mem_node(pattern(kBytes));
    BlockNode* const images[2] = {vanishing.get(), other.get()};
    for (const unsigned lost : {0U, 1U}) {
      Comparison comparison(*images[lost], images[1 - lost], {});
      const ComparisonFinding finding = comparison.run(0, kBytes);
      EXPECT_EQ(finding.kind, ComparisonFinding::Kind::kReadFailed);
      EXPECT_EQ(finding.image, lost);
      ASSERT_TRUE(finding.error.has_value());
      EXPECT_EQ(finding.error->errnum(), EIO);
    }
    EXPECT_TRUE(vanishing->co_close().ok());
    EXPECT_TRUE(other->co_close().ok());
  });
}

}  // namespace
}  // namespace coimg
