// checksum: the digest of what a guest sees in an image.
#include <fmt/format.h>

#include <cerrno>

#include "block/checksum.h"
#include "cmd/command.h"
#include "cmd/common.h"
#include "cmd/json_writer.h"
#include "cmd/progress.h"
#include "cmd/stop_signals.h"

namespace coimg {

namespace {

constexpr double kProgressStep = 1;

/// As sha256sum prints names, so that its --check reads them: one with a newline in it is escaped, and marked.
std::string digest_line(const std::string& digest, const std::string& filename) {
  std::string name;
  for (const char c : filename) {
    if (c == '\\') {
      name += "\\\\";
    } else if (c == '\n') {
      name += "\\n";
    } else if (c == '\r') {
      name += "\\r";
    } else {
      name += c;
    }
  }
  return fmt::format("{}{}  {}\n", name == filename ? "" : "\\", digest, name);
}

class ChecksumCommand final : public Command {
 public:
  [[nodiscard]] std::string_view name() const override { return "checksum"; }
  [[nodiscard]] std::string_view summary() const override { return "Print a digest of what a guest sees in an image"; }
  [[nodiscard]] std::string_view syntax() const override {
    return "[--object objectdef] [--image-opts] [-f fmt] [-a algorithm] [--flat] [--output=ofmt] [-T src_cache] [-p] "
           "[-U] filename [filename2 [...]]";
  }
  [[nodiscard]] CommandWork work() const override { return CommandWork::kRead; }
  void declare(OptionDeclarer& options) override;
  Result<void> prepare(const CommandContext& context, std::vector<std::string> operands) override;
  Result<int> run(CommandContext& context) coroutine_fn override;

 private:
  Result<void> add(const CommandContext& context, const std::string& operand, size_t index, Progress& progress)
      coroutine_fn;
  void report(Console& console, const std::string& operand, const BlockNode& node, const Digest& digest);

  ImageOptions image_;
  ChecksumOptions checksum_;
  CacheMode cache_;
  OutputFormat output_ = OutputFormat::kHuman;
  bool show_progress_ = false;
  std::vector<std::string> operands_;
  JsonValue list_ = JsonValue::array();
  std::string lines_;  ///< kept back while progress is drawn on the same stream
};

void ChecksumCommand::declare(OptionDeclarer& options) {
  image_.declare_format(options, "-f");
  image_.declare_image_opts(options);
  image_.declare_force_share(options);
  image_.declare_object(options);
  options.parsed(
      "-a,--algorithm", "NAME",
      [this](const std::string& text) -> Result<void> {
        const auto algorithm = find_digest_algorithm(text);
        if (!algorithm.has_value()) {
          return Error(EINVAL, fmt::format("Unknown algorithm '{}': expected sha256, blake2b or xxh3", text));
        }
        checksum_.algorithm = *algorithm;
        return {};
      },
      "sha256 (default), blake2b, or xxh3, which is fast and protects from accidents only");
  options.flag("--flat", checksum_.flat, "Digest all bytes in a row, as sha256sum, b2sum and xxhsum do");
  options.parsed(
      "--output", "FORMAT",
      [this](const std::string& text) -> Result<void> {
        output_ = COIMG_TRY(parse_output_format(text));
        return {};
      },
      "human (default) or json");
  options.parsed(
      "-T", "CACHE",
      [this](const std::string& text) -> Result<void> {
        cache_ = COIMG_TRY(parse_source_cache_mode(text));
        return {};
      },
      "Cache mode (default: writeback)");
  options.flag("-p", show_progress_, "Show progress");
  options.describe_operands("FILE [FILE2...]", "One line for each.");
}

Result<void> ChecksumCommand::prepare(const CommandContext& context, std::vector<std::string> operands) {
  if (operands.empty()) return context.program.usage_error("Expecting one or more image file names");
  operands_ = std::move(operands);
  return {};
}

/// An image that cannot be read does not keep the others from being looked at.
Result<int> ChecksumCommand::run(CommandContext& context) {
  int exit_code = 0;
  const StopSignals signals(context, [] {});
  checksum_.should_stop = [&signals] { return signals.received() != 0; };
  {
    Progress progress(context.console, show_progress_, kProgressStep);
    for (size_t i = 0; i < operands_.size(); ++i) {
      auto added = add(context, operands_[i], i, progress);
      if (signals.received() != 0) return context.stopped_by(signals.received());
      if (!added.ok()) exit_code = context.fail(1, added.error());
    }
    if (exit_code == 0) progress.finish();
  }
  context.console.out(output_ == OutputFormat::kJson ? list_.render() : lines_);
  return exit_code;
}

Result<void> ChecksumCommand::add(const CommandContext& context, const std::string& operand, size_t index,
                                  Progress& progress) {
  OpenFlags flags{.force_share = image_.force_share};
  cache_.apply_to(flags);
  const auto node = COIMG_TRY(open_operand(context, operand, image_.format, image_.image_opts, flags));
  ChecksumOptions options = checksum_;
  options.on_progress = [&](uint64_t done, uint64_t total) {
    if (done < total) progress.update(index * total + done, operands_.size() * total);
  };
  auto digest = co_checksum(*node, options).with_context(operand);
  if (digest.ok()) report(context.console, operand, *node, *digest);
  const auto closed = node->co_close();
  if (!digest.ok()) return std::move(digest).error();
  return closed;
}

void ChecksumCommand::report(Console& console, const std::string& operand, const BlockNode& node,
                             const Digest& digest) {
  const std::string algorithm(digest_algorithm_name(checksum_.algorithm));
  if (output_ == OutputFormat::kJson) {
    JsonValue entry = JsonValue::object();
    entry.add("filename", operand);
    entry.add("format", node.type().name());
    entry.add("virtual-size", node.length());
    entry.add("algorithm", algorithm);
    entry.add("construction", checksum_.flat ? "flat" : "tree");
    entry.add("digest", digest.text());
    list_.append(std::move(entry));
    return;
  }
  // The tree's digest must not pass for one of sha256sum.
  const std::string prefix = checksum_.flat ? std::string() : algorithm + "-tree:";
  const std::string line = digest_line(prefix + digest.text(), operand);
  if (show_progress_) {
    lines_ += line;
  } else {
    console.out(line);
  }
}

}  // namespace

std::unique_ptr<Command> make_checksum_command() { return std::make_unique<ChecksumCommand>(); }

}  // namespace coimg
