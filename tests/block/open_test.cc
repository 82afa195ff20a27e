// Tests block/open.cc, backing_chain.cc, create_image.cc and image_name.cc, with the raw driver and a toy format that
// has backing files. The messages are those of qemu-img.
#include "block/open.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "block/protocol/host_file.h"
#include "block/warnings.h"
#include "coroutine/main_loop.h"
#include "formats/raw.h"

namespace coimg {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr uint64_t kToyLength = 1 << 20;

/// An image that is a text of three lines: TOY, the backing file, its format.
class ToyImage final : public BlockDriver {
 public:
  ToyImage(const DriverType& type, std::string backing, std::string format)
      : type_(type), backing_(std::move(backing)), format_(std::move(format)) {}
  const DriverType& type() const override { return type_; }
  uint64_t length() const override { return kToyLength; }
  Result<void> preadv(uint64_t, const IoVector& iov) coroutine_fn override {
    iov.fill(0, iov.size(), std::byte{0});
    return {};
  }
  Result<ImageInfo> info() coroutine_fn override {
    ImageInfo info;
    info.backing_filename = backing_;
    info.backing_format = format_;
    return info;
  }

 private:
  const DriverType& type_;
  std::string backing_, format_;
};

class ToyType final : public DriverType {
 public:
  std::string_view name() const override { return "toy"; }
  DriverKind kind() const override { return DriverKind::kFormat; }
  bool supports_backing() const override { return true; }
  bool supports_create() const override { return true; }
  int probe(std::span<const std::byte> head) const override {
    return head.size() >= 4 && std::memcmp(head.data(), "TOY\n", 4) == 0 ? 100 : 0;
  }
  Result<std::unique_ptr<BlockDriver>> open(OpenArgs args) const coroutine_fn override {
    std::string text(args.file->exact_length(), '\0');
    COIMG_TRY(args.file->co_pread(0, std::as_writable_bytes(std::span(text))));
    std::istringstream lines(text);
    std::string magic, backing, format;
    std::getline(lines, magic);
    if (magic != "TOY") return Error(EINVAL, "Image is not in toy format");
    std::getline(lines, backing);
    std::getline(lines, format);
    return std::make_unique<ToyImage>(*this, backing, format);
  }
  Result<void> create(BlockNode* file, const std::string&, const CreateOptions&) const coroutine_fn override {
    return file->co_pwrite(0, std::as_bytes(std::span("TOY\n\n\n", 6)));
  }
};

std::string warnings;

class OpenTest : public ::testing::Test {
 protected:
  OpenTest() {
    registry_.add(make_file_driver_type());
    registry_.add(make_host_device_driver_type());
    registry_.add(make_raw_driver_type());
    registry_.add(std::make_unique<ToyType>());
    char name[] = "/tmp/coimg-open-XXXXXX";
    directory_ = mkdtemp(name);
    std::filesystem::current_path(directory_);
    warnings.clear();
    set_warning_sink([](std::string_view, const std::string& lines) { warnings += lines; });
  }
  ~OpenTest() override {
    set_warning_sink(nullptr);
    std::filesystem::current_path("/");
    std::filesystem::remove_all(directory_);
  }

  static void write_file(const std::string& name, const std::string& content) {
    std::ofstream(name, std::ios::binary) << content;
  }
  static void make_raw(const std::string& name, uint64_t bytes = 1 << 20) {
    write_file(name, "");
    ASSERT_EQ(truncate(name.c_str(), static_cast<off_t>(bytes)), 0);
  }
  static void make_toy(const std::string& name, const std::string& backing = "", const std::string& format = "") {
    write_file(name, "TOY\n" + backing + "\n" + format + "\n");
  }

  struct Outcome {
    bool ok = false;
    std::string error;  ///< message
    int errnum = 0;
    std::vector<std::string> chain;  ///< "format name" from the top
    uint64_t length = 0;
  };

  Outcome open(const std::string& text, const std::string& format = "", OpenFlags flags = {}, bool opts = false) {
    Outcome outcome;
    run_in_main_loop([&]() coroutine_fn {
      auto image = open_image(registry_, {{text, opts}, format, flags});
      outcome.ok = image.ok();
      if (!image.ok()) {
        outcome.error = image.error().message();
        outcome.errnum = image.error().errnum();
        return;
      }
      outcome.length = (*image)->exact_length();
      for (BlockNode* node = image->get(); node; node = node->backing()) {
        outcome.chain.push_back(std::string(node->type().name()) + " " + node->filename());
      }
      EXPECT_TRUE((*image)->co_close().ok());
    });
    return outcome;
  }
  Outcome open_options(const std::string& text, OpenFlags flags = {}) { return open(text, "", flags, true); }
  std::string error_of(const std::string& text, const std::string& format = "") { return open(text, format).error; }

  using Chain = std::vector<std::string>;
  DriverRegistry registry_;
  std::string directory_;
};

OpenFlags writable() {
  OpenFlags flags;
  flags.writable = true;
  return flags;
}

TEST(ImageName, TheProtocolEndsAtTheFirstColonIfNoSlashComesBefore) {
  const auto split = [](std::string_view name) {
    auto parts = split_protocol(name);
    return parts.protocol + "|" + parts.rest;
  };
  EXPECT_EQ(split("a.raw"), "|a.raw");
  EXPECT_EQ(split("file:a:b"), "file|a:b");
  EXPECT_EQ(split("./a:b"), "|./a:b");
  EXPECT_EQ(split("/a:b"), "|/a:b");
  EXPECT_EQ(split("nbd://host/x"), "nbd|//host/x");
  EXPECT_EQ(split(""), "|");
  EXPECT_EQ(split("json:{}"), "json|{}");
}

TEST(ImageName, BackingNamesAreSeenFromTheOverlaysDirectory) {
  EXPECT_EQ(resolve_backing_name("o.qcow2", "base"), "base");
  EXPECT_EQ(resolve_backing_name("d/o.qcow2", "../base"), "d/../base");
  EXPECT_EQ(resolve_backing_name("/d/o", "base"), "/d/base");
  EXPECT_EQ(resolve_backing_name("d/o", "/base"), "/base");
  EXPECT_EQ(resolve_backing_name("d/o", "nbd:x"), "nbd:x");
  EXPECT_EQ(resolve_backing_name("file:d/o", "base"), "d/base");
  EXPECT_EQ(resolve_backing_name("./a:b", "base"), "./base");
  EXPECT_EQ(resolve_backing_name("file:c:d/o", "base"), "./c:d/base") << "the directory is no protocol";
  EXPECT_EQ(resolve_backing_name("nbd://host/x", "base"), "nbd://host/base");
}

TEST_F(OpenTest, PlainNamesAreProbedAndShownCanonically) {
  make_raw("a.raw");
  make_raw("a:b");
  make_toy("t");
  EXPECT_EQ(open("a.raw").chain, Chain{"raw a.raw"});
  EXPECT_EQ(open("t").chain, Chain{"toy t"});
  EXPECT_EQ(open("t", "raw").chain, Chain{"raw t"});
  EXPECT_EQ(open("file:a.raw").chain, Chain{"raw a.raw"});
  EXPECT_EQ(open("file:a:b").chain, Chain{"raw ./a:b"});
  EXPECT_EQ(open("./a:b").chain, Chain{"raw ./a:b"});
  EXPECT_EQ(open("a.raw", "file").chain, Chain{"file a.raw"});
  EXPECT_TRUE(warnings.empty()) << "reading is not dangerous";
}

TEST_F(OpenTest, MistakesInNamesAreSaidInQemuImgsWords) {
  make_raw("a.raw");
  std::filesystem::create_directory("d");
  EXPECT_EQ(error_of("nofile"), "Could not open 'nofile': No such file or directory");
  EXPECT_EQ(error_of("a.raw", "bogus"), "Unknown driver 'bogus'");
  EXPECT_EQ(error_of("a.raw", "toy"), "Image is not in toy format");
  EXPECT_EQ(error_of(""), "The 'file' block driver requires a file name");
  EXPECT_EQ(error_of("d"), "'file' driver requires 'd' to be a regular file");
  EXPECT_EQ(error_of("d:x"), "Unknown protocol 'd'");
  EXPECT_EQ(error_of("json:{}"), "Must specify either driver or file");
  EXPECT_EQ(error_of("json:[1]"), "Invalid JSON object given");
}

TEST_F(OpenTest, OptionsNameDriversAndFiles) {
  make_raw("a.raw");
  make_toy("t");
  EXPECT_EQ(open_options("driver=raw,file.filename=a.raw").chain, Chain{"raw a.raw"});
  EXPECT_EQ(open_options("file.filename=t").chain, Chain{"toy t"});
  EXPECT_EQ(open_options("driver=file,filename=a.raw").chain, Chain{"file a.raw"});
  EXPECT_EQ(open_options("driver=raw,file.filename=a.raw,file.locking=off,file.aio=threads,node-name=n,"
                         "cache.direct=off,discard=unmap,detect-zeroes=on,read-only=on")
                .chain,
            Chain{"raw a.raw"});
  EXPECT_EQ(open(R"(json:{"driver":"raw","file":{"driver":"file","filename":"a.raw"}})").chain, Chain{"raw a.raw"});
}

TEST_F(OpenTest, MistakesInOptionsAreSaidInQemuImgsWords) {
  make_raw("a.raw");
  const auto error = [&](const std::string& text) { return open_options(text).error; };
  EXPECT_EQ(error("a.raw"), "Cannot find device='a.raw' nor node-name='a.raw'");
  EXPECT_EQ(error("driver=raw,file=x,file.filename=a.raw"),
            "Cannot reference an existing block device with additional options or a new filename");
  EXPECT_EQ(error("filename=a.raw"), "Must specify either driver or file");
  EXPECT_EQ(error(""), "Must specify either driver or file");
  EXPECT_EQ(error("driver=raw"), "A block device must be specified for \"file\"");
  EXPECT_EQ(error("driver=raw,file.locking=off"), "Must specify either driver or file");
  EXPECT_EQ(error("driver=raw,file.filename="), "The 'file' block driver requires a file name");
  EXPECT_EQ(error("driver=nosuch,file.filename=a.raw"), "Unknown driver 'nosuch'");
  EXPECT_EQ(error("driver=raw,file.driver=bogus,file.filename=a.raw"), "Unknown driver 'bogus'");
  EXPECT_EQ(error("driver=raw,file.filename=a.raw,bogus=1"), "Block format 'raw' does not support the option 'bogus'");
  EXPECT_EQ(error("driver=raw,file.filename=a.raw,backing=x"),
            "Block format 'raw' does not support the option 'backing'");
  EXPECT_EQ(error("driver=raw,file.filename=a.raw,file.bogus=1"),
            "Block protocol 'file' doesn't support the option 'bogus'");
  EXPECT_EQ(error("driver=raw,file.filename=file:a.raw"), "Could not open 'file:a.raw': No such file or directory");
  EXPECT_EQ(error("driver=raw,file.filename=a.raw,file.locking=bogus"), "invalid parameter value: bogus");
  EXPECT_EQ(error("driver=raw,file.filename=a.raw,read-only=maybe"), "Parameter 'read-only' expects 'on' or 'off'");
  EXPECT_EQ(error("driver=raw,file.filename=a.raw,discard=bogus"), "Invalid discard option");
  EXPECT_EQ(error("driver=raw,file.driver=host_device,file.filename=a.raw"),
            "'host_device' driver requires 'a.raw' to be either a character or block device");
  const OpenFlags flags = writable();
  EXPECT_EQ(open_options("driver=raw,file.filename=a.raw,force-share=on", flags).error,
            "force-share=on can only be used with read-only images");
  EXPECT_EQ(open_options("driver=raw,file.filename=a.raw,read-only=on", flags).error, "Block node is read-only");
  EXPECT_EQ(open_options("driver=raw,file.filename=a.raw,file.read-only=on", flags).error, "Block node is read-only");
}

TEST_F(OpenTest, OptionsThatChangeTheContentAreInTheName) {
  make_raw("a.raw");
  make_toy("t");
  EXPECT_EQ(open_options("driver=raw,offset=65536,size=512,file.filename=a.raw").chain,
            Chain{R"(raw json:{"offset": "65536", "driver": "raw", "size": "512", "file": {"driver": "file", )"
                  R"("filename": "a.raw"}})"});
  EXPECT_EQ(open(R"(json:{"driver":"raw","file.filename":"a.raw","offset":512,"read-only":true})").chain,
            Chain{R"(raw json:{"offset": 512, "driver": "raw", "file": {"driver": "file", "filename": "a.raw"}})"});
  EXPECT_EQ(
      open(R"(json:{"driver":"toy","file":{"driver":"raw","offset":0,"file":{"driver":"file","filename":"t"}}})").chain,
      Chain{R"(toy json:{"driver": "toy", "file": {"offset": 0, "driver": "raw", "file": {"driver": "file", )"
            R"("filename": "t"}}})"});
}

TEST_F(OpenTest, AProbedRawImageOpenedForWritingWarns) {
  make_raw("a.raw");
  EXPECT_TRUE(open("a.raw", "", writable()).ok);
  EXPECT_EQ(warnings,
            "WARNING: Image format was not specified for 'a.raw' and probing guessed raw.\n"
            "         Automatically detecting the format is dangerous for raw images, write operations on block 0 will "
            "be restricted.\n"
            "         Specify the 'raw' format explicitly to remove the restrictions.\n");
  warnings.clear();
  EXPECT_TRUE(open("a.raw", "raw", writable()).ok);
  EXPECT_EQ(warnings, "");
}

TEST_F(OpenTest, AProbedRawImageCannotBecomeAnotherFormat) {
  make_raw("a.raw");
  run_in_main_loop([&]() coroutine_fn {
    auto image = open_image(registry_, {{"a.raw"}, "", writable()}).value();
    const std::string magic = "TOY\n" + std::string(508, '\0');
    EXPECT_EQ(image->co_pwrite(0, std::as_bytes(std::span(magic))).error().errnum(), EPERM);
    EXPECT_TRUE(image->co_pwrite(512, std::as_bytes(std::span(magic))).ok());
    EXPECT_TRUE(image->co_close().ok());
  });
}

TEST_F(OpenTest, BackingChainsAreFollowedFromTheOverlaysDirectory) {
  std::filesystem::create_directory("d");
  make_raw("base");
  make_toy("d/middle", "../base", "raw");
  make_toy("top", "file:d/middle", "toy");
  EXPECT_EQ(open("top").chain, (Chain{"toy top", "toy d/middle", "raw d/../base"}));
  OpenFlags flags;
  flags.no_backing = true;
  EXPECT_EQ(open("top", "", flags).chain, Chain{"toy top"});
  flags = {};
  flags.no_io = true;
  EXPECT_EQ(open("top", "", flags).chain, Chain{"toy top"});

  make_toy("probes", "d/middle");
  EXPECT_EQ(open("probes").chain, (Chain{"toy probes", "toy d/middle", "raw d/../base"}));
}

TEST_F(OpenTest, AMissingLinkIsReportedOncePerLevel) {
  make_toy("gone", "nofile", "raw");
  make_toy("top", "gone", "toy");
  EXPECT_EQ(error_of("gone"), "Could not open backing file: Could not open 'nofile': No such file or directory");
  EXPECT_EQ(error_of("top"),
            "Could not open backing file: Could not open backing file: Could not open 'nofile': No such file or "
            "directory");
}

TEST_F(OpenTest, TheBackingFileCanBeOverridden) {
  make_raw("base", 4096);
  make_toy("o", "nofile", "raw");
  EXPECT_EQ(open_options("driver=toy,file.filename=o,backing.driver=raw,backing.file.filename=base").chain,
            (Chain{"toy o", "raw base"}));
  EXPECT_EQ(open_options("driver=toy,file.filename=o,backing.file.filename=base").chain, (Chain{"toy o", "raw base"}));
  EXPECT_EQ(open(R"(json:{"driver":"toy","backing":null,"file":{"driver":"file","filename":"o"}})").chain,
            Chain{"toy o"});
  make_toy("p", "o", "raw");
  EXPECT_EQ(open_options("file.filename=p,backing.driver=toy,backing.backing.file.filename=base").chain,
            (Chain{"toy p", "toy o", "raw base"}));
  EXPECT_EQ(open_options("file.filename=p,backing=x").error,
            "Could not open backing file: Cannot find device='x' nor node-name='x'");
}

TEST_F(OpenTest, BackingNamesFromHeadersLeadToLocalFilesOnly) {
  make_toy("unknown", "foo:x", "raw");
  make_toy("json", R"(json:{"driver":"raw","file.filename":"/etc/passwd"})", "raw");
  EXPECT_EQ(error_of("unknown"), "Could not open backing file: Unknown protocol 'foo'");
  EXPECT_THAT(error_of("json"), HasSubstr("is not a local file"));
  make_toy("bad", "x", "bogus");
  make_raw("x");
  EXPECT_EQ(error_of("bad"), "Could not open backing file: Unknown driver 'bogus'");
}

TEST_F(OpenTest, LoopsAreRefusedByTheFileNotByItsName) {
  make_toy("self", "./self", "toy");
  EXPECT_EQ(error_of("self"), "Could not open backing file: Backing file './self' creates an infinite loop.");
  make_toy("a", "b", "toy");
  make_toy("b", "link", "toy");
  ASSERT_EQ(symlink("a", "link"), 0);
  EXPECT_EQ(open("a").errnum, ELOOP);
  EXPECT_EQ(error_of("a"), "Could not open backing file: Backing file 'link' creates an infinite loop.");
  EXPECT_EQ(open("a", "", writable()).errnum, ELOOP) << "and not as a conflict with our own locks";
}

TEST_F(OpenTest, ChainsOfTwoHundredLayersOpenAndLongerOnesDoNot) {
  for (int i = 0; i <= 201; ++i) make_toy(std::to_string(i), i ? std::to_string(i - 1) : "", "toy");
  EXPECT_EQ(open("200").chain.size(), 201U);
  const Outcome tooLong = open("201");
  EXPECT_EQ(tooLong.errnum, ELOOP);
  EXPECT_EQ(tooLong.error, "Could not open backing file: The backing chain has more than 200 layers");
}

TEST_F(OpenTest, NestingOfFormatsIsBounded) {
  make_raw("a.raw");
  std::string options = "driver=raw", prefix = "file.";
  for (int i = 0; i < 20; ++i, prefix += "file.") options += "," + prefix + "driver=raw";
  EXPECT_EQ(open_options(options + "," + prefix + "filename=a.raw").error, "Image formats are nested too deep");
}

TEST_F(OpenTest, NothingStaysOpenAfterAnError) {
  make_toy("top", "middle", "toy");
  make_toy("middle", "nofile", "toy");
  const auto open_files = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator());
  };
  (void)open("top");
  const auto before = open_files();
  (void)open("top");
  (void)open("top", "raw", writable());
  (void)open_options("file.filename=top,bogus=1");
  (void)open_options("file.filename=top,file.bogus=1");
  EXPECT_EQ(open_files(), before);
}

class CreateImageTest : public OpenTest {
 protected:
  Result<void> create(const std::string& format, const std::string& name, const std::string& list) {
    const DriverType& type = *registry_.find(format);
    std::vector<CreateOptionSpec> specs = registry_.find("file")->create_options();
    CreateOptions options(specs);
    EXPECT_TRUE(options.parse(list).ok());
    std::optional<Result<void>> result;
    run_in_main_loop([&]() coroutine_fn { result = create_image(registry_, type, name, options); });
    return *std::move(result);
  }
  std::string error_of_create(const std::string& format, const std::string& name, const std::string& list) {
    return create(format, name, list).error().message();
  }
};

TEST_F(CreateImageTest, AnImageIsAFileWithTheFormatInIt) {
  ASSERT_TRUE(create("raw", "x", "size=1000").ok());
  EXPECT_EQ(std::filesystem::file_size("x"), 1024U);
  EXPECT_EQ(std::filesystem::status("x").permissions() & std::filesystem::perms::mask, std::filesystem::perms{0644});
  ASSERT_TRUE(create("toy", "file:t:t", "size=1M").ok());
  EXPECT_EQ(open("./t:t").chain, Chain{"toy ./t:t"});
}

TEST_F(CreateImageTest, AFileWithOtherNamesIsWrittenInPlace) {
  write_file("x", "old content that is longer than the new one");
  std::filesystem::create_hard_link("x", "y");
  ASSERT_TRUE(create("toy", "x", "size=1M").ok());
  EXPECT_EQ(std::filesystem::file_size("y"), 6U);
}

TEST_F(CreateImageTest, AnImageInUseIsLeftAlone) {
  make_toy("x");
  run_in_main_loop([&]() coroutine_fn {
    auto user = open_image(registry_, {{"x"}, "toy", {}}).value();
    CreateOptions options(registry_.find("file")->create_options());
    EXPECT_TRUE(options.parse("size=1M").ok());
    auto result = create_image(registry_, *registry_.find("raw"), "x", options);
    EXPECT_EQ(result.error().message(), "Failed to get \"write\" lock");
    EXPECT_EQ(result.error().hint(), "Is another process using the image [x]?\n");
    EXPECT_TRUE(user->co_close().ok());
  });
  EXPECT_EQ(open("x").chain, Chain{"toy x"}) << "its content is untouched";
}

TEST_F(CreateImageTest, MistakesAreSaidInQemuImgsWords) {
  std::filesystem::create_directory("d");
  EXPECT_EQ(error_of_create("raw", "nodir/x", "size=1M"), "Could not create 'nodir/x': No such file or directory");
  EXPECT_EQ(error_of_create("raw", "d", "size=1M"), "Could not create 'd': Is a directory");
  // Anybody on the machine may hold the lock of this one.
  EXPECT_THAT(error_of_create("raw", "/dev/null", "size=1M"), AnyOf("Cannot grow device files", HasSubstr("lock")));
  EXPECT_EQ(error_of_create("raw", "foo:bar", "size=1M"), "Unknown protocol 'foo'");
  EXPECT_EQ(error_of_create("raw", "json:{}", "size=1M"), "Unknown protocol 'json'");
  EXPECT_EQ(error_of_create("raw", "x", "size=1M,preallocation=metadata"), "Unsupported preallocation mode: metadata");
  EXPECT_EQ(error_of_create("raw", "x", "size=1M,preallocation=bogus"), "invalid parameter value: bogus");
  EXPECT_FALSE(std::filesystem::exists("x")) << "bad options must not touch the file";
  EXPECT_EQ(error_of_create("raw", "x", "size=7E"), "Could not resize file: File too large");
  EXPECT_FALSE(std::filesystem::exists("x"));
}

}  // namespace
}  // namespace coimg
