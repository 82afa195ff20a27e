#include "formats/qcow2/header.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>

namespace coimg::qcow2 {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

using Bytes = std::vector<std::byte>;

Header small_image(uint32_t cluster_bits = 16) {
  Header header;
  header.cluster_bits = cluster_bits;
  header.size = kMiB;
  header.l1_size = static_cast<uint32_t>(header.geometry().l1_needed(header.size));
  header.l1_table_offset = HostOffset(3 * header.geometry().cluster_size());
  header.refcount_table_offset = HostOffset(header.geometry().cluster_size());
  header.refcount_table_clusters = 1;
  header.feature_names = known_feature_names();
  return header;
}

Bytes encoded(const Header& header) {
  auto bytes = encode_header(header);
  EXPECT_TRUE(bytes.ok());
  return *std::move(bytes);
}

Header parsed(const Bytes& bytes) {
  auto header = parse_header(bytes, {});
  EXPECT_TRUE(header.ok()) << header.error().message();
  return header.ok() ? *std::move(header) : Header{};
}

void put32(Bytes& bytes, size_t offset, uint32_t value) {
  const be32 stored = value;
  std::memcpy(bytes.data() + offset, &stored, sizeof stored);
}
void put64(Bytes& bytes, size_t offset, uint64_t value) {
  const be64 stored = value;
  std::memcpy(bytes.data() + offset, &stored, sizeof stored);
}
uint32_t get32(const Bytes& bytes, size_t offset) {
  be32 stored;
  std::memcpy(static_cast<void*>(&stored), bytes.data() + offset, sizeof stored);
  return stored;
}
uint64_t get64(const Bytes& bytes, size_t offset) {
  be64 stored;
  std::memcpy(static_cast<void*>(&stored), bytes.data() + offset, sizeof stored);
  return stored;
}

// --- layout --------------------------------------------------------------------------------------------------------

TEST(EncodeHeaderTest, APlainHeaderEndsWithItsFeatureTableAt512) {
  const Bytes bytes = encoded(small_image());
  EXPECT_EQ(get32(bytes, 100), 112u);
  EXPECT_EQ(get32(bytes, 112), static_cast<uint32_t>(ExtensionType::kFeatureNameTable));
  EXPECT_EQ(get32(bytes, 116), 384u);
  EXPECT_EQ(get64(bytes, 504), 0u);
  EXPECT_THAT(std::span(bytes).subspan(504), Each(std::byte{0}));
}

TEST(EncodeHeaderTest, Version2HasTheBackingNameBehindTheMarker) {
  Header header = small_image();
  header.version = 2;
  header.backing_file = "base";
  header.backing_format = "qcow2";
  const Bytes bytes = encoded(header);
  EXPECT_EQ(get32(bytes, 72), static_cast<uint32_t>(ExtensionType::kBackingFormat));
  EXPECT_EQ(get64(bytes, 8), 96u);
  EXPECT_EQ(get32(bytes, 16), 4u);
  EXPECT_EQ(std::memcmp(bytes.data() + 96, "base", 5), 0);
}

TEST(EncodeHeaderTest, SmallClustersHaveNoFeatureTable) {
  EXPECT_TRUE(parsed(encoded(small_image(12))).feature_names.empty());
  EXPECT_EQ(parsed(encoded(small_image(13))).feature_names.size(), 8u);
}

TEST(EncodeHeaderTest, WhatDoesNotFitIsRefused) {
  Header header = small_image(9);
  header.backing_file.assign(512 - 112 - 8, 'b');
  EXPECT_EQ(parsed(encoded(header)).backing_file, header.backing_file);
  header.backing_file += 'b';
  EXPECT_EQ(encode_header(header).error().errnum(), ENOSPC);
  header = small_image();
  header.backing_file.assign(1024, 'b');
  EXPECT_EQ(encode_header(header).error().errnum(), EINVAL);
}

TEST(EncodeHeaderTest, EverythingSurvivesARewrite) {
  Header header = small_image();
  header.nb_snapshots = 2;
  header.snapshots_offset = HostOffset(0x50000);
  header.incompatible_features = kDirty | kExternalDataFile;
  header.compatible_features = 0xf00000000000000f;
  header.autoclear_features = kBitmapsValid | kRawExternalData | 0x100;
  header.refcount_order = 6;
  header.unknown_fields.assign(16, std::byte{0xab});
  header.backing_file = "json:{\"a\":1}";
  header.backing_format = "raw";
  header.data_file = "data";
  header.bitmaps = {.count = 3, .directory_bytes = 96, .directory_offset = HostOffset(0x70000)};
  header.unknown_extensions = {{1, Bytes(3, std::byte{1})}, {77, {}}, {1, Bytes(8, std::byte{2})}};

  const Bytes first = encoded(header);
  const Header again = parsed(first);
  EXPECT_EQ(again.header_length, 128u);
  EXPECT_EQ(again.backing_file, header.backing_file);
  EXPECT_EQ(again.data_file, header.data_file);
  EXPECT_EQ(again.bitmaps->directory_offset.v, 0x70000u);
  ASSERT_EQ(again.unknown_extensions.size(), 3u);
  EXPECT_EQ(again.unknown_extensions[2].data, header.unknown_extensions[2].data) << "the order is kept";
  EXPECT_EQ(encoded(again), first);
}

TEST(ParseHeaderTest, A104ByteHeaderIsRewrittenWith112) {
  Bytes bytes = encoded(small_image(9));
  put32(bytes, 100, 104);
  put32(bytes, 104, 0);  // now the end marker
  const Header header = parsed(bytes);
  EXPECT_EQ(header.compression_type, CompressionType::kZlib);
  EXPECT_EQ(get32(encoded(header), 100), 112u);
}

TEST(ParseHeaderTest, AMissingEndMarkerIsFine) {
  Bytes bytes = encoded(small_image(9));
  put32(bytes, 112, 99);
  put32(bytes, 116, 512 - 120);
  EXPECT_EQ(parsed(bytes).unknown_extensions.at(0).data.size(), 392u);
}

TEST(ParseHeaderTest, StringsEndAtANul) {
  Header header = small_image();
  header.backing_file = std::string("ba\0se", 5);
  EXPECT_EQ(parsed(encoded(header)).backing_file, "ba");
}

TEST(ParseHeaderTest, BitmapsWithoutTheirFeatureBitAreStale) {
  Header header = small_image();
  header.bitmaps = {.count = 0, .directory_bytes = 1, .directory_offset = HostOffset(1)};
  const Header again = parsed(encoded(header));
  EXPECT_TRUE(again.stale_bitmaps);
  EXPECT_FALSE(again.bitmaps);
}

TEST(ParseHeaderTest, NamesUnknownFeaturesAsTheImageDoes) {
  Header header = small_image();
  header.incompatible_features = uint64_t{1} << 5 | uint64_t{1} << 63;
  header.feature_names.push_back({0, 5, "time travel"});
  header.feature_names.push_back({1, 63, "not this one"});
  const auto result = parse_header(encoded(header), {});
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().errnum(), ENOTSUP);
  EXPECT_EQ(result.error().message(),
            "Unsupported qcow2 feature(s): time travel, Unknown incompatible feature: 8000000000000000");
}

// --- refusals ------------------------------------------------------------------------------------------------------

struct Refusal {
  const char* message;
  std::function<void(Bytes&)> damage;
};

TEST(ParseHeaderTest, RefusesWithTheKnownWords) {
  const Refusal refusals[] = {
      {"Image is not in qcow2 format", [](Bytes& b) { put32(b, 0, 0); }},
      {"Unsupported qcow2 version 4", [](Bytes& b) { put32(b, 4, 4); }},
      {"Unsupported cluster size: 2^22", [](Bytes& b) { put32(b, 20, 22); }},
      {"Unsupported cluster size: 2^4294967295", [](Bytes& b) { put32(b, 20, ~0u); }},
      {"qcow2 header too short", [](Bytes& b) { put32(b, 100, 103); }},
      {"qcow2 header exceeds cluster size", [](Bytes& b) { put32(b, 100, 65537); }},
      {"Invalid backing file offset", [](Bytes& b) { put64(b, 8, 65537); }},
      {"Invalid backing file offset", [](Bytes& b) { put64(b, 8, 80), put32(b, 16, 1); }},
      {"Backing file name too long", [](Bytes& b) { put64(b, 8, 600), put32(b, 16, 1024); }},
      {"Backing file name too long", [](Bytes& b) { put64(b, 8, 65530), put32(b, 16, 7); }},
      {"qcow2: unknown compression type: 2", [](Bytes& b) { b[104] = std::byte{2}; }},
      {"qcow2: Compression type incompatible feature bit must be set", [](Bytes& b) { b[104] = std::byte{1}; }},
      {"qcow2: Compression type incompatible feature bit must not be set", [](Bytes& b) { put64(b, 72, 8); }},
      {"Reference count entry width too large; may not exceed 64 bits", [](Bytes& b) { put32(b, 96, 7); }},
      {"Image does not contain a reference count table", [](Bytes& b) { put32(b, 56, 0); }},
      {"Reference count table too large", [](Bytes& b) { put32(b, 56, 129); }},
      {"Reference count table offset invalid", [](Bytes& b) { put64(b, 48, 512); }},
      {"Reference count table offset invalid", [](Bytes& b) { put64(b, 48, ~uint64_t{0xffff}); }},
      {"Active L1 table too large", [](Bytes& b) { put32(b, 36, 4194305); }},
      {"Active L1 table offset invalid", [](Bytes& b) { put64(b, 40, 8); }},
      {"Active L1 table offset invalid", [](Bytes& b) { put64(b, 40, uint64_t{1} << 63); }},
      {"L1 table is too small", [](Bytes& b) { put32(b, 36, 0); }},
      {"Image is too big", [](Bytes& b) { put64(b, 24, ~uint64_t{0}); }},
      {"Unsupported encryption method 3", [](Bytes& b) { put32(b, 32, 3); }},
      {"Missing CRYPTO header for crypt method 2", [](Bytes& b) { put32(b, 32, 2); }},
      {"Snapshot table too large", [](Bytes& b) { put32(b, 60, 65537); }},
      {"Snapshot table offset invalid", [](Bytes& b) { put32(b, 60, 1), put64(b, 64, 8); }},
      {"Header extension too large", [](Bytes& b) { put32(b, 116, 65536); }},
      {"Header extension too large", [](Bytes& b) { put64(b, 8, 116); }},
      {"'data-file' is required for this image", [](Bytes& b) { put64(b, 72, 4); }},
      {"data-file-raw requires a data file", [](Bytes& b) { put64(b, 88, 2); }},
      {"ERROR: ext_backing_format: len=16 too large (>=16)",
       [](Bytes& b) { put32(b, 112, static_cast<uint32_t>(ExtensionType::kBackingFormat)), put32(b, 116, 16); }},
      {"bitmaps_ext: Invalid extension length",
       [](Bytes& b) { put32(b, 112, static_cast<uint32_t>(ExtensionType::kBitmaps)), put32(b, 116, 16); }},
      {"CRYPTO header extension only expected with LUKS encryption method",
       [](Bytes& b) { put32(b, 112, static_cast<uint32_t>(ExtensionType::kEncryptionHeader)); }},
  };
  for (const auto& [message, damage] : refusals) {
    Bytes bytes = encoded(small_image());
    damage(bytes);
    const auto result = parse_header(bytes, {});
    ASSERT_FALSE(result.ok()) << message;
    EXPECT_THAT(result.error().message(), HasSubstr(message));
  }
}

TEST(ParseHeaderTest, ExtendedL2EntriesNeedLargeClusters) {
  Header header = small_image(13);
  header.incompatible_features = kExtendedL2;
  EXPECT_EQ(parse_header(encoded(header), {}).error().message(), "Unsupported subcluster size: 256");
  header = small_image(14);
  header.incompatible_features = kExtendedL2;
  EXPECT_TRUE(parse_header(encoded(header), {}).ok());
}

TEST(ParseHeaderTest, WithoutABackingNameItsOffsetHardlyMatters) {
  for (const uint64_t offset : {1, 80, 111, 112, 600, 65536}) {
    Bytes bytes = encoded(small_image());
    put32(bytes, 112, 0);  // no extensions that the offset could cut off
    put64(bytes, 8, offset);
    EXPECT_EQ(parsed(bytes).backing_file, "") << offset;
  }
}

TEST(ParseHeaderTest, SomeDamageIsTolerated) {
  Bytes bytes = encoded(small_image());
  put32(bytes, 56, 0);
  EXPECT_TRUE(parse_header(bytes, {.no_refcount_table = true}).ok());
  bytes = encoded(small_image());
  put64(bytes, 72, 4);
  EXPECT_TRUE(parse_header(bytes, {.info_only = true}).ok());
}

// Whatever one byte of the header says, the parser ends, and what it accepts is within the limits that others rely on.
TEST(ParseHeaderTest, AcceptsOnlyWhatIsBounded) {
  Header header = small_image(9);
  header.backing_file = "base";
  header.backing_format = "qcow2";
  header.bitmaps = {.count = 1, .directory_bytes = 32, .directory_offset = HostOffset(0x1000)};
  header.autoclear_features = kBitmapsValid;
  const Bytes sound = encoded(header);
  for (size_t at = 0; at < sound.size(); ++at) {
    for (const int value : {0, 1, 2, 9, 21, 22, 64, 127, 128, 255}) {
      Bytes bytes = sound;
      bytes[at] = static_cast<std::byte>(value);
      const auto cluster_size = header_cluster_size(bytes);
      if (!cluster_size.ok()) continue;
      bytes.resize(*cluster_size);
      const auto result = parse_header(bytes, {});
      if (!result.ok()) continue;
      EXPECT_LE(result->l1_size, kMaxL1Entries);
      EXPECT_LE(result->geometry().l1_needed(result->size), result->l1_size);
      EXPECT_LE(uint64_t{result->refcount_table_clusters} << result->cluster_bits, kMaxRefcountTableBytes);
      EXPECT_LE(result->nb_snapshots, kMaxSnapshots);
      EXPECT_LE(result->backing_file.size(), kMaxBackingNameBytes);
      if (result->bitmaps) {
        EXPECT_LE(result->bitmaps->directory_bytes, kMaxBitmapDirectoryBytes);
      }
    }
  }
}

}  // namespace
}  // namespace coimg::qcow2
