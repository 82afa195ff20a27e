// The loops that commands spend their time in, on images in memory, for callgrind to count the instructions of: see
// instructions.sh. Nothing here waits or uses other threads, so that the counts are the same each time.
//
// usage: hot_loops [--built]. The argument tells what the counts depend on, besides the sources.
#include <fmt/format.h>
#include <valgrind/callgrind.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "block/copy.h"
#include "block/driver.h"
#include "block/io_vector.h"
#include "block/node.h"
#include "block/options.h"
#include "block/util/math.h"
#include "coroutine/main_loop.h"
#include "formats/qcow2/driver.h"
#include "formats/raw.h"
#include "tests/support/mem_driver.h"

namespace coimg {
namespace {

void require(bool held, std::string_view what) {
  if (held) return;
  fmt::print(stderr, "hot_loops: {}\n", what);
  std::exit(1);
}

/// Has callgrind write down what `loop` costs, under `name`.
void count(const char* name, const std::function<void()>& loop) no_coroutine_fn {
  CALLGRIND_START_INSTRUMENTATION;
  loop();
  CALLGRIND_STOP_INSTRUMENTATION;
  CALLGRIND_DUMP_STATS_AT(name);
}

/// The same for what has to be in a coroutine; starting that is a small part of it.
void count_in_coroutine(const char* name, const std::function<void()>& loop) no_coroutine_fn {
  count(name, [&] { run_in_main_loop(loop); });
}

// --- zeros ----------------------------------------------------------------------------------------------------------

void count_zero_detection() no_coroutine_fn {
  std::vector<std::byte> memory(kMiB);
  bool zero = false;
  count("is_zero_of_zeros", [&] { zero = is_zero(memory); });
  require(zero, "zeros are not found");
  memory[memory.size() - 100] = std::byte{1};  // what the quick looks at both ends and the middle miss
  count("is_zero_of_a_late_byte", [&] { zero = is_zero(memory); });
  require(!zero, "a byte is missed");
  // Blocks of the size that convert looks at.
  count("is_zero_by_4k", [&] {
    for (size_t at = 0; at < memory.size(); at += 4 * kKiB) zero = is_zero(std::span(memory).subspan(at, 4 * kKiB));
  });
}

// --- images ---------------------------------------------------------------------------------------------------------

const DriverType& qcow2_type() {
  static const std::unique_ptr<DriverType> type = make_qcow2_driver_type();
  return *type;
}

std::unique_ptr<BlockNode> make_qcow2(uint64_t size, const std::string& options) coroutine_fn {
  CreateOptions create(qcow2_type().create_options());
  require(create.parse(options).ok() && create.set("size", std::to_string(size)).ok(), "options are refused");
  auto disk = std::make_shared<MemDisk>();
  disk->bytes.reserve(2 * size);  // else its growth would be counted
  auto file = make_mem_node(disk);
  require(qcow2_type().create(file.get(), "image", create).ok(), "an image cannot be created");
  auto image = open_format(qcow2_type(), std::move(file), {.writable = true});
  require(image.ok(), "an image cannot be opened");
  return std::move(*image);
}

std::unique_ptr<BlockNode> make_raw(std::vector<std::byte> content) coroutine_fn {
  static const std::unique_ptr<DriverType> type = make_raw_driver_type();
  auto image = open_format(*type, make_mem_node(std::move(content)), {.writable = true});
  require(image.ok(), "a raw image cannot be opened");
  return std::move(*image);
}

void close(BlockNode& node) coroutine_fn { require(node.co_close().ok(), "an image cannot be closed"); }

// --- L2 tables ------------------------------------------------------------------------------------------------------

/// How many extents the image has. The file is not asked for holes: this is about the tables.
uint64_t walk(BlockNode& image) coroutine_fn {
  uint64_t extents = 0;
  for (uint64_t at = 0; at < image.length(); ++extents) {
    const auto status = image.co_block_status(at, image.length() - at, false);
    require(status.ok() && status->bytes > 0, "no block status");
    at += status->bytes;
  }
  return extents;
}

void count_block_status() no_coroutine_fn {
  std::unique_ptr<BlockNode> image;
  uint64_t extents = 0;
  run_in_main_loop([&]() coroutine_fn {
    image = make_qcow2(64 * kMiB, "cluster_size=512,preallocation=metadata");  // 131,072 entries
  });
  count_in_coroutine("block_status_of_one_run", [&]() coroutine_fn { extents = walk(*image); });
  require(extents < 10000, "the full image is in pieces");
  run_in_main_loop([&]() coroutine_fn {
    close(*image);
    // No cluster lies behind its neighbour.
    image = make_qcow2(32 * kMiB, "cluster_size=4096");
    const std::vector<std::byte> cluster = pattern(4096);
    constexpr uint64_t kClusters = 32 * kMiB / 4096;
    for (uint64_t i = 0; i < kClusters; ++i) {
      require(image->co_pwrite(i * 1021 % kClusters * 4096, cluster).ok(), "a write fails");
    }
    require(image->co_flush().ok(), "a flush fails");
  });
  count_in_coroutine("block_status_of_fragments", [&]() coroutine_fn { extents = walk(*image); });
  require(extents > 8000, "the fragmented image is in one piece");
  run_in_main_loop([&]() coroutine_fn { close(*image); });
}

// --- check ----------------------------------------------------------------------------------------------------------

void count_check(const char* name, const std::string& options, bool with_snapshot) no_coroutine_fn {
  class Reporter final : public CheckReporter {
    void finding(std::string_view line) override { require(false, line); }
  } reporter;
  std::unique_ptr<BlockNode> image;
  run_in_main_loop([&]() coroutine_fn {
    image = make_qcow2(64 * kMiB, "preallocation=metadata," + options);
    require(!with_snapshot || image->co_create_snapshot("one").ok(), "no snapshot can be made");
    require(image->co_flush().ok(), "a flush fails");
  });
  count_in_coroutine(name, [&]() coroutine_fn {
    const auto result = image->co_check({.reporter = &reporter, .should_stop = {}});
    require(result.ok() && result->allocated_clusters == result->total_clusters, "not all clusters are counted");
  });
  run_in_main_loop([&]() coroutine_fn { close(*image); });
}

// --- copies ---------------------------------------------------------------------------------------------------------

/// 8 MiB: of every `period` bytes `data_bytes` are data, and the others zeros.
std::vector<std::byte> content_of(size_t data_bytes, size_t period) {
  std::vector<std::byte> content = pattern(8 * kMiB);
  for (size_t at = 0; at < content.size(); at += period) {
    std::fill_n(content.begin() + static_cast<ptrdiff_t>(at + data_bytes), period - data_bytes, std::byte{0});
  }
  return content;
}

void count_copy(const char* name, const std::vector<std::byte>& content, const std::string& options, bool back)
    no_coroutine_fn {
  std::unique_ptr<BlockNode> source, target;
  const CopyOptions copy{.workers = 1, .target_is_zero = true};
  run_in_main_loop([&]() coroutine_fn {
    source = make_raw(content);
    target = make_qcow2(source->length(), options);
    if (!back) return;
    require(co_copy({source.get()}, *target, copy).ok() && target->co_flush().ok(), "a copy fails");
    close(*source);
    source = std::move(target);
    target = make_raw(std::vector<std::byte>(source->length()));
  });
  count_in_coroutine(name, [&]() coroutine_fn {
    require(co_copy({source.get()}, *target, copy).ok() && target->co_flush().ok(), "a copy fails");
  });
  run_in_main_loop([&]() coroutine_fn {
    close(*source);
    close(*target);
  });
}

void run() no_coroutine_fn {
  MainLoop::init();
  count_zero_detection();
  count_block_status();
  count_check("check", "cluster_size=512", false);  // 131,072 clusters
  count_check("check_with_snapshot", "cluster_size=512", true);
  count_check("check_8_bit_refcounts", "cluster_size=512,refcount_bits=8", false);
  // Long runs show what is done with each byte, short ones what a run costs.
  const std::vector<std::byte> long_runs = content_of(112 * kKiB, 128 * kKiB);
  const std::vector<std::byte> short_runs = content_of(4 * kKiB, 16 * kKiB);
  count_copy("copy_raw_to_qcow2", long_runs, "cluster_size=65536", false);
  count_copy("copy_raw_to_qcow2_short_runs", short_runs, "cluster_size=4096", false);
  count_copy("copy_raw_to_qcow2_512_byte_clusters", long_runs, "cluster_size=512", false);
  count_copy("copy_qcow2_to_raw", long_runs, "cluster_size=65536", true);
  count_copy("copy_qcow2_to_raw_short_runs", short_runs, "cluster_size=4096", true);
}

void tell_how_built() {
#if defined(__clang__)
  const std::string compiler = fmt::format("clang {}", __clang_major__);
#else
  const std::string compiler = fmt::format("g++ {}", __GNUC__);
#endif
#if defined(__OPTIMIZE__)
  const std::string_view optimised = "optimised";
#else
  const std::string_view optimised = "not optimised";
#endif
#if defined(__x86_64__)
  const std::string_view processor = __builtin_cpu_supports("avx2") ? "x86-64 with AVX2" : "x86-64";
#else
  const std::string_view processor = "another processor";
#endif
  fmt::print("{}, {}, {}\n", compiler, optimised, processor);
}

}  // namespace
}  // namespace coimg

int main(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "--built") {
    coimg::tell_how_built();
  } else {
    coimg::run();
  }
}
