#include "formats/add_cow/header.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>

namespace coimg::add_cow {
namespace {

using ::testing::HasSubstr;
using Bytes = std::vector<std::byte>;

bool knows(std::string_view name) { return name == "raw" || name == "qcow2" || name == "add-cow"; }

/// A correct header, to be damaged.
class AddCowHeader : public ::testing::Test {
 protected:
  AddCowHeader() {
    header_.backing_file = "base.raw";
    header_.backing_format = "raw";
    header_.image_file = "img.raw";
    header_.image_format = "raw";
    EXPECT_TRUE(lay_out_names(header_).ok());
    set_cluster_bits(12);
  }

  void set_cluster_bits(uint32_t bits) {
    header_.geometry.cluster_bits = bits;
    bytes_ = encode_header(header_);
    bytes_.resize(header_.geometry.header_bytes());
    std::memcpy(&fields_, bytes_.data(), sizeof fields_);
  }

  ParsedHeader parse() {
    std::memcpy(bytes_.data(), &fields_, sizeof fields_);
    return parse_header(bytes_, bytes_.size(), knows);
  }
  /// The faults, a line each.
  std::string faults() {
    std::string text;
    for (const Error& fault : parse().faults) text += fault.message() + "\n";
    return text;
  }
  static void set_text(DiskFormatName& field, std::string_view text) {
    field = {};
    std::ranges::copy(text, field.begin());
  }

  Header header_;
  DiskHeader fields_{};
  Bytes bytes_;
};

TEST_F(AddCowHeader, IsReadAsItWasWritten) {
  for (uint32_t bits = kMinClusterBits; bits <= kMaxClusterBits; ++bits) {
    set_cluster_bits(bits);
    const ParsedHeader parsed = parse();
    ASSERT_TRUE(parsed.faults.empty()) << faults();
    EXPECT_EQ(parsed.header.backing_file, "base.raw");
    EXPECT_EQ(parsed.header.image_file, "img.raw");
    EXPECT_EQ(parsed.header.image_format, "raw");
    EXPECT_EQ(parsed.header.geometry.cluster_bytes(), uint64_t{1} << bits);
    EXPECT_EQ(parsed.header.geometry.header_bytes(), uint64_t{1} << bits);
    EXPECT_FALSE(has_stray_bytes(bytes_, parsed.header));
  }
}

TEST_F(AddCowHeader, NamesMayLieAnywhere) {
  std::fill(bytes_.begin() + kNamesOffset, bytes_.end(), std::byte{0});
  std::memcpy(bytes_.data() + 3000, "img.raw", 7);
  std::memcpy(bytes_.data() + 4096 - 8, "base.raw", 8);
  fields_.image_offset = 3000;
  fields_.backing_offset = 4096 - 8;
  const ParsedHeader parsed = parse();
  ASSERT_TRUE(parsed.faults.empty()) << faults();
  EXPECT_EQ(parsed.header.image_file, "img.raw");
  EXPECT_EQ(parsed.header.backing_file, "base.raw");
}

TEST_F(AddCowHeader, EachFaultIsSaid) {
  const auto expect_fault = [this](const char* text, const std::function<void()>& damage) {
    SCOPED_TRACE(text);
    const DiskHeader fields = fields_;
    const Bytes bytes = bytes_;
    damage();
    EXPECT_THAT(faults(), HasSubstr(text));
    fields_ = fields;
    bytes_ = bytes;
    EXPECT_EQ(faults(), "");
  };
  expect_fault("magic is 0x574f4342", [&] { fields_.magic = kMagic + 1; });
  expect_fault("cluster_bits is 11", [&] { fields_.cluster_bits = 11; });
  expect_fault("cluster_bits is 22", [&] { fields_.cluster_bits = 22; });
  expect_fault("cluster_bits is 4294967295", [&] { fields_.cluster_bits = UINT32_MAX; });
  expect_fault("header_size is 8192; 4096 is needed", [&] { fields_.header_bytes = 8192; });
  expect_fault("features is 0x8000000000000000", [&] { fields_.features = uint64_t{1} << 63; });
  expect_fault("image_size is 0", [&] { fields_.image_bytes = 0; });
  expect_fault("image_offset is 0 and", [&] { fields_.image_offset = 0; });
  expect_fault("image_offset is 75 and", [&] { fields_.image_offset = 75; });
  expect_fault("image_offset is 4090 and image_size is 7", [&] { fields_.image_offset = 4090; });
  expect_fault("image_size is 4294967295", [&] { fields_.image_bytes = UINT32_MAX; });
  expect_fault("image_offset is 4294967295", [&] { fields_.image_offset = UINT32_MAX; });
  expect_fault("backing_offset is 0 and backing_size is 8", [&] { fields_.backing_offset = 0; });
  expect_fault("backing_offset is 76 and backing_size is 0", [&] { fields_.backing_bytes = 0; });
  expect_fault("backing_offset is 1 and", [&] { fields_.backing_offset = 1; });
  expect_fault("backing_offset is 4089 and", [&] { fields_.backing_offset = 4089; });
  expect_fault("the backing file name has a NUL byte", [&] { bytes_[80] = std::byte{0}; });
  expect_fault("the image file name has a NUL byte", [&] { bytes_[90] = std::byte{0}; });
  expect_fault("image_fmt is empty", [&] { set_text(fields_.image_format, ""); });
  expect_fault("image_fmt is 'vmdk', which is not", [&] { set_text(fields_.image_format, "vmdk"); });
  expect_fault("image_fmt is 'abcdefghijklmnop' without", [&] { set_text(fields_.image_format, "abcdefghijklmnop"); });
  expect_fault("backing_fmt is empty", [&] { set_text(fields_.backing_format, ""); });
  expect_fault("backing_fmt is 'a\\x1b', which is not", [&] { set_text(fields_.backing_format, "a\x1b"); });
}

TEST_F(AddCowHeader, AllFaultsAreFound) {
  fields_.features = 6;
  fields_.image_bytes = 0;
  fields_.backing_offset = 0;
  set_text(fields_.backing_format, "bochs");
  EXPECT_EQ(parse().faults.size(), 4u) << faults();
}

TEST_F(AddCowHeader, TheBackingFormatDoesNotMatterWithNothingToReadThere) {
  set_text(fields_.backing_format, "bochs");
  EXPECT_NE(faults(), "");
  fields_.compatible_features = kAllAllocated;
  EXPECT_EQ(faults(), "");
  fields_.compatible_features = 0;
  fields_.backing_offset = fields_.backing_bytes = 0;
  EXPECT_EQ(faults(), "");
}

TEST_F(AddCowHeader, UnknownCompatibleFeaturesAreKept) {
  fields_.compatible_features = 0xf00000000000000e;
  const ParsedHeader parsed = parse();
  EXPECT_TRUE(parsed.faults.empty());
  EXPECT_EQ(uint64_t{encode_fixed_fields(parsed.header).compatible_features}, 0xf00000000000000e);
  EXPECT_FALSE(parsed.header.all_allocated());
}

TEST_F(AddCowHeader, AnEarlyDraftIsCalledOne) {
  std::memcpy(bytes_.data(), "ADD_COW\xff", 8);
  std::memcpy(&fields_, bytes_.data(), sizeof fields_);
  EXPECT_THAT(faults(), HasSubstr("an early draft"));
  EXPECT_EQ(parse().faults.front().errnum(), ENOTSUP);
  EXPECT_TRUE(has_magic(bytes_));
}

// However short the file is cut, or whatever bit is flipped, there is a fault or the header makes sense.
TEST_F(AddCowHeader, DamageIsNoticedOrHarmless) {
  for (size_t length = 0; length < bytes_.size(); ++length) {
    const auto cut = std::span(bytes_).first(length);
    EXPECT_FALSE(parse_header(cut, length, knows).faults.empty()) << length;
  }
  for (size_t bit = 0; bit < sizeof(DiskHeader) * 8; ++bit) {
    Bytes flipped = bytes_;
    flipped[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    const auto start = std::span(flipped).first(std::min(header_bytes_of(flipped), flipped.size()));
    const ParsedHeader parsed = parse_header(start, flipped.size(), knows);
    if (!parsed.faults.empty()) continue;
    EXPECT_FALSE(parsed.header.image_file.empty()) << bit;
    EXPECT_TRUE(knows(parsed.header.image_format)) << bit;
    EXPECT_LE(parsed.header.image_name.offset + parsed.header.image_name.bytes, flipped.size()) << bit;
  }
}

TEST_F(AddCowHeader, NamesThatDoNotFitAreRefused) {
  header_.backing_file = std::string(kMaxBackingNameBytes, 'b');
  header_.image_file = std::string(4020 - kMaxBackingNameBytes, 'i');
  EXPECT_TRUE(lay_out_names(header_).ok());
  header_.image_file += 'i';
  EXPECT_EQ(lay_out_names(header_).error().errnum(), ENOSPC);
  header_.geometry.cluster_bits = 16;
  EXPECT_TRUE(lay_out_names(header_).ok());
  header_.backing_file += 'b';
  EXPECT_EQ(lay_out_names(header_).error().errnum(), ENAMETOOLONG);
  header_.backing_file.clear();
  header_.image_file = std::string(kMaxImageNameBytes + 1, 'i');
  EXPECT_EQ(lay_out_names(header_).error().errnum(), ENAMETOOLONG);
}

TEST_F(AddCowHeader, RoomIsFoundBesideTheNamesInUse) {
  const auto room = find_room(header_, 100);  // both names are in front
  ASSERT_TRUE(room.has_value());
  EXPECT_EQ(room->offset, 76u + 15);
  EXPECT_EQ(find_room(header_, 4096 - 76 - 15)->offset, 76u + 15);
  EXPECT_FALSE(find_room(header_, 4096 - 76 - 14).has_value());
  header_.backing_name = {};
  EXPECT_EQ(find_room(header_, 8)->offset, 76u) << "the place of the old backing name";
  EXPECT_EQ(find_room(header_, 9)->offset, 76u + 15);
}

TEST_F(AddCowHeader, StrayBytesAreSeen) {
  EXPECT_FALSE(has_stray_bytes(bytes_, header_));
  bytes_[4095] = std::byte{1};
  EXPECT_TRUE(has_stray_bytes(bytes_, header_));
}

TEST(AddCowGeometry, LengthsAreThoseOfTheSpecification) {
  struct Row {
    uint64_t size;
    uint32_t bits;
    uint64_t clusters, bytes, area, file;
  };
  const Row rows[] = {
      {kMiB, 16, 16, 2, 65536, 131072},
      {kMiB + 512, 16, 17, 3, 65536, 131072},
      {kMiB, 12, 256, 32, 4096, 8192},
      {300 * kMiB, 12, 76800, 9600, 12288, 16384},
      {3 * kGiB, 12, 786432, 98304, 98304, 102400},
      {5 * kMiB, 21, 3, 1, 2097152, 4194304},
  };
  for (const Row& row : rows) {
    const Geometry geometry{.cluster_bits = row.bits};
    EXPECT_EQ(geometry.clusters(row.size), row.clusters);
    EXPECT_EQ(geometry.bitmap_bytes(row.size), row.bytes);
    EXPECT_EQ(geometry.bitmap_area(row.size), row.area);
    EXPECT_EQ(geometry.file_bytes(row.size), row.file);
  }
}

}  // namespace
}  // namespace coimg::add_cow
