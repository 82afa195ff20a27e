#include "tests/crash/suite.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "block/warnings.h"

extern char** environ;

namespace coimg::crash {

namespace {

constexpr size_t kDefaultImages = 2500;
constexpr size_t kCases = 45;  ///< roughly; the summary tells what it came to
constexpr size_t kFewestImages = 20;

size_t images_tried = 0, images_seen_by_qemu = 0;

void be_silent(std::string_view, const std::string&) {}

/// Tells of the number of images at the end; what an image's repair has to say does not matter.
class Summary final : public testing::Environment {
  void SetUp() override { set_warning_sink(be_silent); }
  void TearDown() override {
    set_warning_sink({});
    if (images_tried == 0) return;
    fmt::print("{} images after a crash, {} of them checked by qemu-img, too\n", images_tried, images_seen_by_qemu);
  }
};
[[maybe_unused]] testing::Environment* const summary = testing::AddGlobalTestEnvironment(new Summary);

bool has_qemu_img() {
  static const bool found = run_program("/", {"qemu-img", "--version"}).exit_code == 0;
  return found;
}

bool is_dirty(std::span<const std::byte> image) {
  constexpr size_t kLastFeatureByte = 79, kVersionByte = 7;
  return image.size() > kLastFeatureByte && image[kVersionByte] == std::byte{3} &&
         (image[kLastFeatureByte] & std::byte{1}) != std::byte{0};
}

/// Puts the files where qemu-img is to look at them.
const TemporaryDirectory& show_to_qemu(const std::vector<NamedFile>& files) {
  ++images_seen_by_qemu;
  static const TemporaryDirectory directory;
  for (const NamedFile& file : files) directory.write(file.name, file.bytes);
  return directory;
}

}  // namespace

size_t images_per_case() {
  const char* const given = std::getenv("COIMG_CRASH_IMAGES");
  const size_t images = given ? std::strtoull(given, nullptr, 10) : kDefaultImages;
  return std::max(images / kCases, kFewestImages);
}

uint64_t seed() {
  const char* const given = std::getenv("COIMG_TEST_SEED");
  return given ? std::strtoull(given, nullptr, 0) : std::random_device()();
}

void count_image() { ++images_tried; }

TemporaryDirectory::TemporaryDirectory() {
  const char* const in_memory = "/dev/shm";
  const std::string parent = access(in_memory, W_OK) == 0 ? in_memory : std::filesystem::temp_directory_path().string();
  path_ = parent + "/coimg-crash.XXXXXX";
  if (!mkdtemp(path_.data())) ADD_FAILURE() << "cannot make " << path_;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void TemporaryDirectory::write(const std::string& name, std::span<const std::byte> bytes) const {
  std::ofstream file(path_ + "/" + name, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  ASSERT_TRUE(file.flush()) << name;
}

std::vector<std::byte> TemporaryDirectory::read(const std::string& name) const {
  std::ifstream file(path_ + "/" + name, std::ios::binary);
  EXPECT_TRUE(file) << name;
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

Outcome run_program(const std::string& directory, const std::vector<std::string>& command,
                    const std::vector<std::string>& environment) {
  std::vector<char*> arguments, variables;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  for (const std::string& variable : environment) variables.push_back(const_cast<char*>(variable.c_str()));
  for (char** variable = environ; *variable; ++variable) variables.push_back(*variable);
  variables.push_back(nullptr);

  Outcome outcome;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return outcome;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addchdir_np(&actions, directory.c_str());
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
  pid_t child = 0;
  const int failed = posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), variables.data());
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  char piece[4096];
  for (ssize_t got = 0; !failed && (got = read(ends[0], piece, sizeof piece)) > 0;) {
    outcome.output.append(piece, static_cast<size_t>(got));
  }
  close(ends[0]);
  int status = 0;
  if (!failed && waitpid(child, &status, 0) == child && WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
  return outcome;
}

void expect_repairable_for_qemu(const std::vector<NamedFile>& files) {
  if (!has_qemu_img()) return;
  const TemporaryDirectory& directory = show_to_qemu(files);
  const Outcome repaired =
      run_program(directory.path(), {"qemu-img", "check", "-r", "all", "-f", "qcow2", files.front().name});
  EXPECT_EQ(repaired.exit_code, 0) << repaired.output;
}

void expect_sound_for_qemu(const std::vector<NamedFile>& files, CopiedFlags copied_flags) {
  if (!has_qemu_img()) return;
  const TemporaryDirectory& directory = show_to_qemu(files);
  const std::string& image = files.front().name;
  constexpr int kClean = 0, kCorrupt = 2, kLeaks = 3;
  const auto acceptable = [](const Outcome& outcome) {
    return outcome.exit_code == kClean || outcome.exit_code == kLeaks;
  };
  const bool repair_first = is_dirty(files.front().bytes);
  if (repair_first) {
    const Outcome repaired = run_program(directory.path(), {"qemu-img", "check", "-r", "all", "-f", "qcow2", image});
    EXPECT_EQ(repaired.exit_code, kClean) << repaired.output;
  }
  const Outcome checked = run_program(directory.path(), {"qemu-img", "check", "-f", "qcow2", image});
  if (acceptable(checked)) return;
  EXPECT_EQ(checked.exit_code, kCorrupt) << checked.output;
  EXPECT_TRUE(copied_flags == CopiedFlags::kMayBeOff) << checked.output;
  std::istringstream lines(checked.output);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("ERROR")) continue;
    EXPECT_NE(line.find("OFLAG_COPIED"), std::string::npos) << line;
  }
  const Outcome repaired = run_program(directory.path(), {"qemu-img", "check", "-r", "all", "-f", "qcow2", image});
  EXPECT_EQ(repaired.exit_code, kClean) << repaired.output;
}

}  // namespace coimg::crash
