// Images that the format's first implementation made, and images that are to be refused.
//
// tests/data/add-cow/manifest.json says what their guests see, how they were created, and what is wrong with them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "block/open.h"
#include "coroutine/main_loop.h"
#include "formats/registry.h"
#include "tests/formats/add_cow/image_fixture.h"

namespace coimg::add_cow {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

std::string content_of(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream content;
  content << stream.rdbuf();
  return content.str();
}

/// All files of a directory with what they hold.
std::map<std::string, std::string> snapshot_of(const fs::path& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(directory)) files[entry.path().string()] = content_of(entry.path());
  return files;
}

/// The digest of what the guest sees.
std::string sha256_of(BlockNode& image) coroutine_fn {
  const Bytes content = read_all(image);
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  EXPECT_EQ(EVP_Digest(content.data(), content.size(), digest, &length, EVP_sha256(), nullptr), 1);
  std::string hex;
  for (unsigned i = 0; i < length; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

/// The unpacked images, in a directory of their own that is the working directory meanwhile.
class AddCowFixtures : public ::testing::Test {
 protected:
  void SetUp() override {
    if (std::system("command -v xz tar >/dev/null") != 0) GTEST_SKIP() << "needs tar and xz";
    std::string name = (fs::temp_directory_path() / "coimg-add-cow-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    directory_ = name;
    old_directory_ = fs::current_path();
    fs::current_path(directory_);
    for (const auto& entry : fs::directory_iterator(fs::path(COIMG_TEST_DATA) / "add-cow")) {
      if (entry.path().extension() != ".xz") continue;
      ASSERT_EQ(std::system(fmt::format("tar -xJf '{}'", entry.path().string()).c_str()), 0);
    }
    std::ifstream stream(fs::path(COIMG_TEST_DATA) / "add-cow" / "manifest.json");
    manifest_ = json::parse(stream);
    register_builtin_drivers(registry_);
  }
  void TearDown() override {
    if (directory_.empty()) return;
    fs::current_path(old_directory_);
    fs::remove_all(directory_);
  }

  Result<std::unique_ptr<BlockNode>> open(const std::string& file, OpenFlags flags = {}) coroutine_fn {
    return coimg::open_image(registry_, {.name = {.text = file}, .format = "add-cow", .flags = flags});
  }

  fs::path directory_, old_directory_;
  json manifest_;
  DriverRegistry registry_;
};

TEST_F(AddCowFixtures, GuestsSeeWhatTheFirstImplementationWrote) {
  ASSERT_GT(manifest_["fixtures"].size(), 6u);
  run_in_main_loop([&]() coroutine_fn {
    for (const json& fixture : manifest_["fixtures"]) {
      const std::string name = fixture["name"];
      SCOPED_TRACE(name);
      const auto before = snapshot_of(name);
      auto image = open(name + "/" + fixture["open"].get<std::string>());
      ASSERT_TRUE(image.ok()) << image.error().message();
      EXPECT_EQ((*image)->length(), fixture["virtual_size"].get<uint64_t>());
      EXPECT_EQ(sha256_of(**image), fixture["guest_sha256"].get<std::string>());
      EXPECT_TRUE((*image)->co_close().ok());
      EXPECT_EQ(snapshot_of(name), before) << "a reader has changed a file";
    }
  });
}

TEST_F(AddCowFixtures, AnImageThatHasItAllNeedsNoBackingFile) {
  fs::remove("all-allocated-flag/base.raw");
  fs::remove("basic-64k/base.raw");
  run_in_main_loop([&]() coroutine_fn {
    auto image = open("all-allocated-flag/disk.add-cow", {.writable = true});
    ASSERT_TRUE(image.ok()) << image.error().message();
    for (const json& fixture : manifest_["fixtures"]) {
      if (fixture["name"] != "all-allocated-flag") continue;
      EXPECT_EQ(sha256_of(**image), fixture["guest_sha256"].get<std::string>());
    }
    EXPECT_TRUE((*image)->co_close().ok());
    EXPECT_FALSE(open("basic-64k/disk.add-cow").ok());
    // Whoever only checks has no use for it either.
    image = open("basic-64k/disk.add-cow", {.check = true});
    ASSERT_TRUE(image.ok()) << image.error().message();
    EXPECT_TRUE((*image)->co_close().ok());
  });
}

// Links lead to the same files: a loop is found whatever the names are.
TEST_F(AddCowFixtures, OneFileInTwoRolesIsFoundUnderAnyName) {
  fs::current_path("chain");
  fs::remove("base.raw");
  fs::create_symlink("top.img", "base.raw");  // the image file of the top, below two layers
  run_in_main_loop([&]() coroutine_fn {
    auto image = open("top.add-cow");
    ASSERT_FALSE(image.ok());
    EXPECT_THAT(image.error().message(), HasSubstr("base.raw' holds the data of an image above it"));
  });
  fs::remove("mid.img");
  fs::create_hard_link("top.add-cow", "mid.img");
  run_in_main_loop([&]() coroutine_fn {
    auto image = open("top.add-cow");
    ASSERT_FALSE(image.ok());
    EXPECT_THAT(image.error().message(), HasSubstr("Image file 'mid.img' creates an infinite loop"));
  });
}

/// The value of a "Format specific" field.
template <typename T>
T field(const ImageInfo& info, const std::string& key) {
  for (const InfoField& each : info.format_specific->fields) {
    if (each.key == key) return std::get<T>(each.value);
  }
  ADD_FAILURE() << "no " << key;
  return {};
}

TEST_F(AddCowFixtures, HeadersSayWhatTheyWereGiven) {
  run_in_main_loop([&]() coroutine_fn {
    for (const json& fixture : manifest_["fixtures"]) {
      SCOPED_TRACE(fixture["name"].get<std::string>());
      auto image = open(fixture["name"].get<std::string>() + "/" + fixture["open"].get<std::string>(),
                        {.no_io = true, .no_backing = true});
      ASSERT_TRUE(image.ok()) << image.error().message();
      const auto info = (*image)->co_info();
      ASSERT_TRUE(info.ok());
      EXPECT_EQ(info->cluster_size, fixture["cluster_size"].get<uint64_t>());
      EXPECT_EQ(info->backing_filename,
                fixture["backing_file"].is_null() ? "" : fixture["backing_file"].get<std::string>());
      EXPECT_EQ(field<std::string>(*info, "image-file"), fixture["image_file"].get<std::string>());
      EXPECT_EQ(field<std::string>(*info, "image-format"), fixture["image_fmt"].get<std::string>());
      const bool all = (fixture["compatible_features"].get<uint64_t>() & kAllAllocated) != 0;
      EXPECT_EQ(field<bool>(*info, "all-allocated"), all);
      int64_t allocated = 0;
      if (fixture["allocated_clusters"].is_array()) {
        for (const json& run : fixture["allocated_clusters"]) allocated += run[1].get<int64_t>();
      }
      EXPECT_EQ(field<int64_t>(*info, "allocated-clusters"), all ? field<int64_t>(*info, "total-clusters") : allocated);
      EXPECT_TRUE((*image)->co_close().ok());
    }
  });
}

// The options that made a fixture make the same header and the same length again.
TEST_F(AddCowFixtures, NewImagesHaveTheSameHeaderByteForByte) {
  run_in_main_loop([&]() coroutine_fn {
    for (const json& fixture : manifest_["fixtures"]) {
      const std::string theirs = fixture["name"].get<std::string>() + "/" + fixture["open"].get<std::string>();
      SCOPED_TRACE(theirs);
      fs::create_directory("ours");
      CreateOptions options(add_cow_type().create_options());
      const auto set = [&](const char* option, const std::string& value) {
        EXPECT_TRUE(options.set(option, value).ok()) << option;
      };
      set("size", std::to_string(fixture["virtual_size"].get<uint64_t>()));
      set("cluster_size", std::to_string(fixture["cluster_size"].get<uint64_t>()));
      set("image_file", fixture["image_file"]);
      set("image_fmt", fixture["image_fmt"]);
      if (!fixture["backing_file"].is_null()) {
        set("backing_file", fixture["backing_file"]);
        set("backing_fmt", fixture["backing_fmt"]);
      }
      const auto created = create_image(registry_, *registry_.find("add-cow"), "ours/disk", options);
      ASSERT_TRUE(created.ok()) << created.error().message();
      const std::string ours = content_of("ours/disk");
      std::string expected = content_of(theirs);
      ASSERT_EQ(ours.size(), expected.size());
      // One of them got its flag by hand after it was made.
      if (fixture["name"] == "all-allocated-flag") expected[offsetof(DiskHeader, compatible_features)] = 0;
      const size_t header = fixture["header_size"].get<size_t>();
      EXPECT_EQ(ours.substr(0, header), expected.substr(0, header));
      EXPECT_EQ(ours.substr(header), std::string(ours.size() - header, '\0'));
      fs::remove_all("ours");
    }
  });
}

TEST_F(AddCowFixtures, WhatMustNotBeOpenedIsRefusedWithItsReason) {
  const std::map<std::string, std::string> messages = {
      {"features-bit-0", "features is 0x1"},
      {"cluster-bits-11", "cluster_bits is 11; 12 to 21 are allowed"},
      {"cluster-bits-22", "cluster_bits is 22; 12 to 21 are allowed"},
      {"header-size-0", "header_size is 0; 4096 is needed"},
      {"file-of-40-bytes", "truncated header: the file has 40 bytes"},
      {"bitmap-missing", "the COW bitmap is cut short: the file has 4096 bytes, a disk of 65536 bytes needs 4098"},
      {"magic-old-draft", "an early draft"},
      {"image-name-missing", "image_size is 0"},
      {"image-name-past-header", "the name must lie between 76 and 4096"},
      {"backing-name-size-0", "backing_offset is 76 and backing_size is 0"},
      {"backing-fmt-empty", "backing_fmt is empty"},
      {"image-fmt-empty", "image_fmt is empty"},
      {"image-is-backing", "base.raw' holds the data of an image above it"},
      {"image-is-itself", "Image file 'headers/image-is-itself/d.add-cow' creates an infinite loop"},
      {"backing-is-itself", "Backing file 'headers/backing-is-itself/d.add-cow' creates an infinite loop"},
      {"image-file-absent", "i.raw': No such file or directory"},
  };
  size_t refused = 0;
  run_in_main_loop([&]() coroutine_fn {
    for (const json& fixture : manifest_["headers"]["cases"]) {
      const std::string name = fixture["case"];
      SCOPED_TRACE(name);
      const std::string directory = "headers/" + name;
      const auto before = snapshot_of(directory);
      for (const bool writable : {false, true}) {
        auto image = open(directory + "/d.add-cow", {.writable = writable});
        if (fixture["expect"] == "accept") {
          ASSERT_TRUE(image.ok()) << image.error().message();
          EXPECT_EQ(sha256_of(**image), fixture["guest_sha256"].get<std::string>());
          EXPECT_TRUE((*image)->co_close().ok());
          continue;
        }
        ASSERT_FALSE(image.ok());
        ASSERT_TRUE(messages.contains(name));
        EXPECT_THAT(image.error().message(), HasSubstr(messages.at(name)));
        ++refused;
      }
      EXPECT_EQ(snapshot_of(directory), before) << "a file has changed";
    }
  });
  EXPECT_EQ(refused, 2 * messages.size());
}

}  // namespace
}  // namespace coimg::add_cow
