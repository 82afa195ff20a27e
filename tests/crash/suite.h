// What the crash tests share: how many images they try, the seed, and qemu-img's opinion of an image.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace coimg::crash {

/// How many images a test case tries: its share of COIMG_CRASH_IMAGES (default 2500), at least 20.
size_t images_per_case();

/// COIMG_TEST_SEED, or a random one. Goes into each failure's message.
uint64_t seed();

/// Counts an image for the summary that is printed at the end of the program.
void count_image();

/// The files of an image, by the names under which the image refers to them.
struct NamedFile {
  std::string name;
  std::span<const std::byte> bytes;
};

enum class CopiedFlags { kRight, kMayBeOff };

/// qemu-img has to find nothing worse than leaks in the first file. COPIED flags that disagree with refcounts of one
/// may be allowed. A dirty image is repaired first, as it would be at its next use. Does nothing where qemu-img is not
/// installed, which the summary tells.
void expect_sound_for_qemu(const std::vector<NamedFile>& files, CopiedFlags copied_flags = CopiedFlags::kRight);

/// qemu-img's repair has to leave nothing to be found in the first file.
void expect_repairable_for_qemu(const std::vector<NamedFile>& files);

/// A directory that is removed at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory();
  [[nodiscard]] const std::string& path() const { return path_; }
  void write(const std::string& name, std::span<const std::byte> bytes) const;
  [[nodiscard]] std::vector<std::byte> read(const std::string& name) const;

 private:
  std::string path_;
};

/// Runs a program in a directory, through no shell, with `environment` ("NAME=value") added to this program's own.
struct Outcome {
  int exit_code = -1;  ///< -1: a signal
  std::string output;  ///< of stdout and stderr
};
Outcome run_program(const std::string& directory, const std::vector<std::string>& command,
                    const std::vector<std::string>& environment = {});

}  // namespace coimg::crash
