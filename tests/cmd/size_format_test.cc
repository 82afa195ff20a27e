#include "cmd/size_format.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <ostream>

namespace coimg {
namespace {

struct Case {
  uint64_t bytes;
  const char* text;

  friend void PrintTo(const Case& value, std::ostream* out) { *out << value.bytes << " bytes"; }
};

class RenderSizeTest : public testing::TestWithParam<Case> {};

TEST_P(RenderSizeTest, HasThreeDigitsBelowAThousand) { EXPECT_EQ(render_size(GetParam().bytes), GetParam().text); }

INSTANTIATE_TEST_SUITE_P(
    Table, RenderSizeTest,
    testing::Values(Case{0, "0 B"}, Case{1, "1 B"}, Case{512, "512 B"}, Case{999, "999 B"}, Case{1000, "0.977 KiB"},
                    Case{10240, "10 KiB"}, Case{1024000, "0.977 MiB"}, Case{1047552, "0.999 MiB"},
                    Case{10747904, "10.2 MiB"}, Case{197120, "192 KiB"}, Case{1047527424, "999 MiB"},
                    Case{1048576000, "0.977 GiB"}, Case{1072693248, "0.999 GiB"}, Case{1610612736, "1.5 GiB"},
                    Case{11542724608, "10.8 GiB"}, Case{8796093022208, "8 TiB"}, Case{105130496, "100 MiB"},
                    Case{uint64_t{1} << 50, "1 PiB"}, Case{INT64_MAX, "8 EiB"}, Case{UINT64_MAX, "16 EiB"}));

}  // namespace
}  // namespace coimg
