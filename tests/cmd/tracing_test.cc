#include "cmd/tracing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

namespace coimg {
namespace {

TEST(TracingTest, ALineCanBeJson) {
  init_tracing();
  trace_as_json();
  ::testing::internal::CaptureStderr();
  spdlog::warn("could not remove '{}'", "a\"\n%v");
  spdlog::info("not asked for");
  const std::string lines = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(lines, ::testing::MatchesRegex("\\{\"type\": \"trace\", \"severity\": \"warning\", \"time-us\": [0-9]+, "
                                             "\"message\": \"could not remove 'a\\\\\"\\\\n%v'\"\\}\n"));
  init_tracing();
}

}  // namespace
}  // namespace coimg
