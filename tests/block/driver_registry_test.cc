// Tests block/driver_registry.cc: names and probing.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "block/driver.h"
#include "coroutine/main_loop.h"
#include "formats/raw.h"

namespace coimg {
namespace {

using namespace std::string_view_literals;

/// A type that recognises its images by a prefix.
class PrefixType final : public DriverType {
 public:
  PrefixType(std::string_view name, std::string_view prefix, int score, DriverKind kind = DriverKind::kFormat)
      : name_(name), prefix_(prefix), score_(score), kind_(kind) {}
  std::string_view name() const override { return name_; }
  DriverKind kind() const override { return kind_; }
  int probe(std::span<const std::byte> head) const override {
    const bool found = head.size() >= prefix_.size() && std::memcmp(head.data(), prefix_.data(), prefix_.size()) == 0;
    return found ? score_ : 0;
  }
  Result<std::unique_ptr<BlockDriver>> open(OpenArgs) const coroutine_fn override { return Error::from_errno(ENOTSUP); }

 private:
  std::string_view name_, prefix_;
  int score_;
  DriverKind kind_;
};

class DriverRegistryTest : public ::testing::Test {
 protected:
  DriverRegistryTest() {
    registry_.add(std::make_unique<PrefixType>("protocol", "AB", 100, DriverKind::kProtocol));
    registry_.add(make_raw_driver_type());
    registry_.add(std::make_unique<PrefixType>("vague", "AB", 10));
    registry_.add(std::make_unique<PrefixType>("certain", "ABC", 100));
    registry_.add(std::make_unique<PrefixType>("lucky", "LUKS", 100));
  }
  /// The name of the format found, or the error.
  std::string probe(std::string_view head) const {
    const auto found = registry_.probe(std::as_bytes(std::span(head)));
    return found.ok() ? std::string((*found)->name()) : found.error().message();
  }
  DriverRegistry registry_;
};

TEST_F(DriverRegistryTest, FindsTypesByTheirExactName) {
  ASSERT_NE(registry_.find("raw"), nullptr);
  EXPECT_EQ(registry_.find("raw")->name(), "raw");
  EXPECT_EQ(registry_.find("RAW"), nullptr);
  EXPECT_EQ(registry_.find(""), nullptr);
}

TEST_F(DriverRegistryTest, TheSurestFormatWinsAndProtocolsAreNotAsked) {
  EXPECT_EQ(probe("AB"), "vague");
  EXPECT_EQ(probe("ABC"), "certain");
}

TEST_F(DriverRegistryTest, WhatNobodyKnowsIsRaw) {
  EXPECT_EQ(probe(""), "raw");
  EXPECT_EQ(probe("A"), "raw");
  EXPECT_EQ(probe(std::string(2048, '\0')), "raw");
}

TEST_F(DriverRegistryTest, ForeignFormatsAreRefusedByName) {
  EXPECT_EQ(probe("KDMV\1\0\0\0"sv), "Unknown driver 'vmdk'");
  EXPECT_EQ(probe("COWD"), "Unknown driver 'vmdk'");
  EXPECT_EQ(probe("# Disk DescriptorFile\nversion=1\n"), "Unknown driver 'vmdk'");
  EXPECT_EQ(probe("QFI\xfb\0\0\0\1\0\0"sv), "Unknown driver 'qcow'");
  EXPECT_EQ(probe(std::string(64, '<') + "\x7f\x10\xda\xbe"), "Unknown driver 'vdi'");
  EXPECT_EQ(probe("vhdxfile"), "Unknown driver 'vhdx'");
  EXPECT_EQ(probe("conectix"), "Unknown driver 'vpc'");
  EXPECT_EQ(probe("LUKS\xba\xbe\0\1"sv), "lucky") << "a registered format knows better";
  EXPECT_EQ(probe("QED\0"sv), "Unknown driver 'qed'");
  EXPECT_EQ(probe("WithoutFreeSpace"), "Unknown driver 'parallels'");
  EXPECT_EQ(probe("WithouFreSpacExt"), "Unknown driver 'parallels'");
  EXPECT_EQ(probe("Bochs Virtual HD Image\0"sv), "Unknown driver 'bochs'");
}

TEST_F(DriverRegistryTest, AForeignMagicCutShortIsRaw) {
  for (std::string_view magic : {"KDMV"sv, "vhdxfile"sv, "conectix"sv, "QED\0"sv, "WithoutFreeSpace"sv}) {
    EXPECT_EQ(probe(magic.substr(0, magic.size() - 1)), "raw") << magic;
  }
}

TEST(DriverDefaults, SayInWordsWhatIsMissing) {
  const PrefixType type("tiny", "", 0);
  run_in_main_loop([&]() coroutine_fn {
    const auto measured = type.measure(CreateOptions({}), {.virtual_size = 512});
    ASSERT_FALSE(measured.ok());
    EXPECT_EQ(measured.error().errnum(), ENOTSUP);
    EXPECT_EQ(measured.error().message(), "Block driver 'tiny' does not support size measurement");
  });
}

TEST(DriverDefaults, FormatsWithMetadataShareNeitherWriteNorResize) {
  const PrefixType type("tiny", "", 0);
  const unsigned shared = kPermAll & ~(kPermWrite | kPermResize);
  const auto info = type.file_permissions({.no_io = true});
  EXPECT_EQ(info.used, 0u);
  EXPECT_EQ(info.shared, shared);
  const auto reader = type.file_permissions({});
  EXPECT_EQ(reader.used, kPermConsistentRead);
  EXPECT_EQ(reader.shared, shared);
  const auto writer = type.file_permissions({.writable = true});
  EXPECT_EQ(writer.used, kPermConsistentRead | kPermWrite | kPermResize);
  EXPECT_EQ(writer.shared, shared);
  const auto careless = type.file_permissions({.force_share = true});
  EXPECT_EQ(careless.used, 0u);
  EXPECT_EQ(careless.shared, unsigned{kPermAll});
}

}  // namespace
}  // namespace coimg
