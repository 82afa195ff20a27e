// Reads, describes and checks images that other programs made, and compares with what those programs said.
//
// tests/data/qcow2/manifest.json has the list: content, outcome of a check, and for malformed images the message.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "block/open.h"
#include "block/warnings.h"
#include "coroutine/main_loop.h"
#include "formats/registry.h"
#include "tests/formats/qcow2/image_fixture.h"

namespace coimg::qcow2 {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

std::string warnings;

/// The unpacked images, in a directory of their own that is the working directory meanwhile.
class FixturesTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (std::system("command -v xz >/dev/null") != 0) return;
    std::string name = (fs::temp_directory_path() / "coimg-fixtures-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    directory = new fs::path(name);
    fs::copy(fs::path(COIMG_TEST_DATA) / "qcow2", *directory);
    ASSERT_EQ(std::system(fmt::format("cd '{}' && xz -dq *.xz", name).c_str()), 0);
    std::ifstream stream(*directory / "manifest.json");
    manifest = new json(json::parse(stream));
  }
  static void TearDownTestSuite() {
    if (directory) fs::remove_all(*directory);
    delete std::exchange(directory, nullptr);
    delete std::exchange(manifest, nullptr);
  }

  void SetUp() override {
    if (!directory) GTEST_SKIP() << "needs xz";
    register_builtin_drivers(registry_);
    old_directory_ = fs::current_path();
    fs::current_path(*directory);
    warnings.clear();
    set_warning_sink([](std::string_view, const std::string& lines) { warnings += lines; });
  }
  void TearDown() override {
    if (!directory) return;
    set_warning_sink(nullptr);
    fs::current_path(old_directory_);
  }

  Result<std::unique_ptr<BlockNode>> open(const std::string& file, OpenFlags flags = {}) coroutine_fn {
    return coimg::open_image(registry_, {.name = {.text = file}, .format = "qcow2", .flags = flags});
  }

  /// Calls `visit` for each image of the manifest that `wanted` accepts.
  template <typename Wanted, typename Visit>
  void for_each(const Wanted& wanted, const Visit& visit) {
    size_t visited = 0;
    run_in_main_loop([&]() coroutine_fn {
      for (const json& fixture : (*manifest)["fixtures"]) {
        if (!wanted(fixture)) continue;
        SCOPED_TRACE(fixture["file"].get<std::string>() + ": " + fixture["feature"].get<std::string>());
        warnings.clear();
        visit(fixture);
        ++visited;
      }
    });
    EXPECT_GT(visited, 10u);
  }

  static fs::path* directory;
  static json* manifest;
  DriverRegistry registry_;
  fs::path old_directory_;
};
fs::path* FixturesTest::directory = nullptr;
json* FixturesTest::manifest = nullptr;

/// Features that are refused by name, until they are there.
bool needs_missing_feature(const std::string& file) {
  for (const char* part : {"luks", "aes"}) {
    if (file.find(part) != std::string::npos) return true;
  }
  return false;
}

/// The digest of what the guest sees.
std::string sha256_of(BlockNode& image) coroutine_fn {
  EVP_MD_CTX* const context = EVP_MD_CTX_new();
  EVP_DigestInit_ex(context, EVP_sha256(), nullptr);
  std::vector<std::byte> buffer(1 << 20);
  for (uint64_t offset = 0; offset < image.length(); offset += buffer.size()) {
    const auto piece = std::span(buffer).first(std::min<uint64_t>(buffer.size(), image.length() - offset));
    const auto read = image.co_pread(offset, piece);
    EXPECT_TRUE(read.ok()) << read.error().message();
    EVP_DigestUpdate(context, piece.data(), piece.size());
  }
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  EVP_DigestFinal_ex(context, digest, &length);
  EVP_MD_CTX_free(context);
  std::string hex;
  for (unsigned i = 0; i < length; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

std::string content_of(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream content;
  content << stream.rdbuf();
  return content.str();
}

TEST_F(FixturesTest, GuestsSeeWhatOthersWrote) {
  for_each([](const json& fixture) { return fixture.contains("sha256") && fixture.contains("cluster_size"); },
           [&](const json& fixture) coroutine_fn {
             const std::string file = fixture["file"];
             const std::string before = content_of(file);
             auto image = open(file);
             if (needs_missing_feature(file)) {
               ASSERT_FALSE(image.ok());
               EXPECT_EQ(image.error().errnum(), ENOTSUP) << image.error().message();
               return;
             }
             ASSERT_TRUE(image.ok()) << image.error().message();
             EXPECT_EQ((*image)->length(), fixture["virtual_size"].get<uint64_t>());
             EXPECT_EQ(sha256_of(**image), fixture["sha256"].get<std::string>());
             EXPECT_TRUE((*image)->co_close().ok());
             EXPECT_EQ(content_of(file), before) << "a reader has changed the file";
           });
}

TEST_F(FixturesTest, MetadataIsAsOthersTell) {
  for_each([](const json& fixture) { return fixture.contains("cluster_size"); },
           [&](const json& fixture) coroutine_fn {
             auto image = open(fixture["file"], {.no_io = true, .no_backing = true});
             ASSERT_TRUE(image.ok()) << image.error().message();
             const auto info = (*image)->co_info();
             ASSERT_TRUE(info.ok());
             EXPECT_EQ(info->cluster_size, fixture["cluster_size"].get<uint64_t>());
             EXPECT_EQ(std::get<std::string>(info->format_specific->fields[0].value),
                       fixture["version"] == 2 ? "0.10" : "1.1");
             if (fixture.contains("snapshots")) {
               EXPECT_EQ(info->snapshots.size(), fixture["snapshots"].size());
             }
             EXPECT_TRUE((*image)->co_close().ok());
           });
}

TEST_F(FixturesTest, CheckFindsWhatOthersFind) {
  for_each([](const json& fixture) { return fixture.contains("check") && !needs_missing_feature(fixture["file"]); },
           [&](const json& fixture) coroutine_fn {
             auto image = open(fixture["file"], {.no_backing = true, .check = true});
             ASSERT_TRUE(image.ok()) << image.error().message();
             FindingCollector findings;
             const auto result = (*image)->co_check({.reporter = &findings});
             EXPECT_TRUE((*image)->co_close().ok());
             const json expected = fixture["check"].value("json", json());
             if (!result.ok()) {
               EXPECT_FALSE(expected.is_object()) << result.error().message();
               return;
             }
             ASSERT_TRUE(expected.is_object());
             const auto count = [&](const char* key) { return expected.value(key, uint64_t{0}); };
             EXPECT_EQ(result->corruptions, count("corruptions")) << findings.text();
             EXPECT_EQ(result->leaks, count("leaks")) << findings.text();
             EXPECT_EQ(result->check_errors, count("check-errors")) << findings.text();
             EXPECT_EQ(result->image_end_offset, count("image-end-offset"));
             EXPECT_EQ(result->total_clusters, count("total-clusters"));
             EXPECT_EQ(result->allocated_clusters, count("allocated-clusters"));
             EXPECT_EQ(result->compressed_clusters, count("compressed-clusters"));
             EXPECT_EQ(result->fragmented_clusters, count("fragmented-clusters"));
           });
}

TEST_F(FixturesTest, MalformedImagesAreRefusedWithTheKnownWords) {
  for_each(
      [](const json& fixture) { return fixture.contains("qemu_message") && !needs_missing_feature(fixture["file"]); },
      [&](const json& fixture) coroutine_fn {
        const std::string message =
            fixture["qemu_message"].is_string() ? fixture["qemu_message"].get<std::string>() : "";
        auto image = open(fixture["file"]);
        if (fixture["open"] == "refuse") {
          ASSERT_FALSE(image.ok());
          EXPECT_THAT(image.error().message(), HasSubstr(message));
          return;
        }
        ASSERT_TRUE(image.ok()) << image.error().message();
        std::vector<std::byte> memory((*image)->length());
        const auto read = (*image)->co_pread(0, memory);
        EXPECT_EQ(read.ok(), fixture["qemu_read"] == "ok");
        EXPECT_THAT(warnings, HasSubstr(message));
        EXPECT_TRUE((*image)->co_close().ok());
      });
}

}  // namespace
}  // namespace coimg::qcow2
