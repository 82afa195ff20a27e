// convert: copy images into a new one, or into one that exists. This file has the options; conversion.h does the work.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "block/util/math.h"
#include "cmd/command.h"
#include "cmd/common.h"
#include "cmd/conversion.h"
#include "cmd/sizes.h"

namespace coimg {

namespace {

constexpr double kProgressStep = 1;
constexpr uint64_t kMaxSparseBytes = 16 * kMiB;
constexpr int64_t kMaxWorkers = 16;
constexpr int64_t kMaxCompressionLevel = 19;

/// Options that exclude one another, in the order in which they are looked at.
struct Exclusion {
  bool violated;
  const char* message;
};

class ConvertCommand final : public Command {
 public:
  [[nodiscard]] std::string_view name() const override { return "convert"; }
  [[nodiscard]] std::string_view summary() const override { return "Copy images into another one, in any format"; }
  [[nodiscard]] std::string_view syntax() const override {
    return "[--object objectdef] [--image-opts] [--target-image-opts] [--target-is-zero] [--bitmaps] [-U] [-C] [-c] "
           "[-p] [-q] [-n] [-f fmt] [-t cache] [-T src_cache] [-O output_fmt] [-B backing_file [-F backing_fmt]] "
           "[-o options] [-l snapshot_param] [-S sparse_size] [-r rate_limit] [-m num_coroutines] [-W] [--salvage] "
           "filename [filename2 [...]] output_filename";
  }
  void declare(OptionDeclarer& options) override;
  Result<void> prepare(const CommandContext& context, std::vector<std::string> operands) override;
  Result<int> run(CommandContext& context) coroutine_fn override;

 private:
  void declare_numbers(OptionDeclarer& options);
  [[nodiscard]] Result<void> check_exclusions() const;

  ConvertRequest request_;
  std::string source_cache_name_ = "writeback", target_cache_name_ = "unsafe";
  bool show_progress_ = false, offload_ = false, sparse_given_ = false;
};

void ConvertCommand::declare(OptionDeclarer& options) {
  request_.image.declare_format(options, "-f");
  request_.image.declare_image_opts(options);
  request_.image.declare_force_share(options);
  request_.image.declare_object(options);
  request_.option_list.declare(options);
  options.text("-O", "FMT", request_.target_format, "Format of the target (default: raw)");
  options.text(options.program().as_qemu_img ? "-B" : "-B,-b", "BACKING", request_.backing,
               "The target is an overlay of this file");
  options.text("-F", "FMT", request_.backing_format, "Format of the target's backing file");
  options.text("-t", "CACHE", target_cache_name_, "Cache mode of the target (default: unsafe)");
  options.text("-T", "CACHE", source_cache_name_, "Cache mode of the sources (default: writeback)");
  request_.snapshot.declare(options);
  declare_numbers(options);
  options.flag("-c", request_.compress, "Write compressed clusters");
  options.flag("-C", offload_, "Accepted for compatibility: data are always copied by this program");
  options.flag("-n", request_.skip_create, "Do not create the target; it must exist and be large enough");
  options.flag("-p", show_progress_, "Show progress");
  options.flag("-q", request_.quiet, "Print nothing but errors");
  options.flag("--verify", request_.verify, "Read the target back and compare it with the sources");
  options.flag("-W", request_.out_of_order, "Allow writes out of order");
  options.flag("--salvage", request_.salvage, "Go on after read errors; what cannot be read becomes zeros");
  options.flag("--bitmaps", request_.bitmaps, "Copy the persistent bitmaps too");
  options.flag("--skip-broken-bitmaps", request_.skip_broken_bitmaps, "With --bitmaps: leave inconsistent ones out");
  options.flag("--target-is-zero", request_.target_is_zero, "With -n: the target reads as zeros now");
  options.flag("--target-image-opts", request_.target_image_opts, "The target is driver options; needs -n");
  options.describe_operands("FILE [FILE2...] TARGET", "Several sources are concatenated.");
}

void ConvertCommand::declare_numbers(OptionDeclarer& options) {
  options.parsed(
      "-S", "BYTES",
      [this](const std::string& text) -> Result<void> {
        const uint64_t bytes = COIMG_TRY(parse_operand_size(text, "buffer size for sparse output"));
        if (!is_aligned(bytes, kSectorSize) || bytes > kMaxSparseBytes) {
          return Error(EINVAL, fmt::format("Invalid buffer size for sparse output specified. Valid sizes are multiples "
                                           "of {} up to {}. Select 0 to disable sparse detection (fully allocates "
                                           "output).",
                                           kSectorSize, kMaxSparseBytes));
        }
        request_.sparse_bytes = bytes;
        sparse_given_ = true;
        return {};
      },
      "Zero runs of at least this become holes (default: 4k); 0 allocates all");
  options.parsed(
      "-r", "BYTES",
      [this](const std::string& text) -> Result<void> {
        request_.rate_limit = COIMG_TRY(parse_operand_size(text, "rate limit"));
        return {};
      },
      "Write no more than this a second");
  options.parsed(
      "-m", "N",
      [this](const std::string& text) -> Result<void> {
        const auto count = parse_count(text);
        if (!count.has_value() || *count < 1 || *count > kMaxWorkers) {
          return Error(EINVAL, fmt::format("Invalid number of coroutines. Allowed number of coroutines is between 1 "
                                           "and {}",
                                           kMaxWorkers));
        }
        request_.workers = static_cast<unsigned>(*count);
        return {};
      },
      "Requests in flight, 1 to 16 (default: 8)");
  options.parsed(
      "--compression-level", "N",
      [this](const std::string& text) -> Result<void> {
        const auto level = parse_count(text);
        if (!level.has_value() || *level < 1 || *level > kMaxCompressionLevel) {
          return Error(EINVAL, fmt::format("Invalid compression level '{}': expected 1 (fast) to {} (small)", text,
                                           kMaxCompressionLevel));
        }
        request_.compression_level = static_cast<unsigned>(*level);
        return {};
      },
      "With -c: 1 (fast) to 19 (small); zlib has 9 levels");
}

Result<void> ConvertCommand::check_exclusions() const {
  const Exclusion exclusions[] = {
      {request_.skip_broken_bitmaps && !request_.bitmaps, "Use of --skip-broken-bitmaps requires --bitmaps"},
      {offload_ && request_.compress, "Cannot enable copy offloading when -c is used"},
      {request_.compression_level != 0 && !request_.compress, "--compression-level is of use only with -c"},
      {offload_ && sparse_given_, "Cannot enable copy offloading when -S is used"},
      {offload_ && request_.salvage, "Cannot use copy offloading in salvaging mode"},
      {request_.verify && request_.salvage,
       "--verify cannot be used with --salvage: what is not read cannot be compared"},
      {request_.target_image_opts && !request_.skip_create, "--target-image-opts requires use of -n flag"},
      {request_.skip_create && request_.option_list.given(), "-o has no effect when skipping image creation"},
      {request_.target_is_zero && !request_.skip_create, "--target-is-zero requires use of -n flag"},
  };
  for (const Exclusion& exclusion : exclusions) {
    if (exclusion.violated) return Error(EINVAL, exclusion.message);
  }
  return {};
}

Result<void> ConvertCommand::prepare(const CommandContext&, std::vector<std::string> operands) {
  COIMG_TRY(check_exclusions());
  if (!request_.target_format.has_value() && !request_.target_image_opts) request_.target_format = "raw";
  if (!operands.empty()) {
    request_.target = std::move(operands.back());
    operands.pop_back();
  }
  request_.sources = std::move(operands);
  if (request_.option_list.asks_for_help()) return {};
  if (request_.sources.empty()) return Error(EINVAL, "Must specify image file name");
  request_.source_cache = COIMG_TRY(parse_source_cache_mode(source_cache_name_));
  // Looked at before the target is touched, unlike in qemu-img.
  request_.target_cache = COIMG_TRY(parse_cache_mode(target_cache_name_));
  return {};
}

Result<int> ConvertCommand::run(CommandContext& context) {
  if (request_.option_list.asks_for_help()) {
    std::optional<std::string> target;
    if (!request_.target.empty()) target = request_.target;
    return print_create_option_help(context, *request_.target_format, target);
  }
  Progress progress(context.console, show_progress_ && !request_.quiet, kProgressStep);
  return Conversion(context, request_, progress).run();
}

}  // namespace

std::unique_ptr<Command> make_convert_command() { return std::make_unique<ConvertCommand>(); }

}  // namespace coimg
