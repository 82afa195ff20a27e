// map: where each range of the virtual disk comes from.
#include <fmt/compile.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <iterator>

#include "block/util/hex.h"
#include "cmd/command.h"
#include "cmd/common.h"
#include "cmd/sizes.h"

namespace coimg {

namespace {

/// A range of the disk with one answer.
struct MapEntry {
  uint64_t start = 0, length = 0;
  unsigned depth = 0;
  bool present = false, zero = false, data = false;
  std::optional<uint64_t> host_offset = {};
  const BlockNode* file = nullptr;  ///< what host_offset refers to

  [[nodiscard]] bool continued_by(const MapEntry& next) const {
    if (depth != next.depth || present != next.present || zero != next.zero || data != next.data) return false;
    if (host_offset.has_value() != next.host_offset.has_value() || file != next.file) return false;
    return !host_offset.has_value() || *host_offset + length == *next.host_offset;
  }
};

/// Prints entries as they become known, so that a large map needs no memory.
class MapPrinter {
 public:
  MapPrinter(Console& console, OutputFormat format) : console_(console), format_(format) {}

  void begin() {
    if (format_ == OutputFormat::kJson) {
      console_.out("[");
    } else {
      console_.out(fmt::format("{:<16}{:<16}{:<16}{}\n", "Offset", "Length", "Mapped to", "File"));
    }
  }

  enum class Position { kInside, kLast };
  Result<void> print(const MapEntry& entry, Position position = Position::kInside) {
    return format_ == OutputFormat::kJson ? json(entry, position) : human(entry);
  }

 private:
  /// A large map is hundreds of thousands of these lines, hence the formats that are compiled.
  Result<void> json(const MapEntry& entry, Position position) {
    line_.clear();
    const auto end = std::back_inserter(line_);
    fmt::format_to(
        end,
        FMT_COMPILE("{{ \"start\": {}, \"length\": {}, \"depth\": {}, \"present\": {}, \"zero\": {}, \"data\": {}"),
        entry.start, entry.length, entry.depth, entry.present, entry.zero, entry.data);
    if (entry.host_offset.has_value()) fmt::format_to(end, FMT_COMPILE(", \"offset\": {}"), *entry.host_offset);
    fmt::format_to(end, FMT_COMPILE("}}{}\n"), position == Position::kLast ? ']' : ',');
    console_.out({line_.data(), line_.size()});
    return {};
  }

  Result<void> human(const MapEntry& entry) {
    if (entry.data && !entry.host_offset.has_value()) {
      return Error(ENOTSUP, "File contains external, encrypted or compressed clusters.");
    }
    if (!entry.data || entry.zero) return {};
    console_.out(fmt::format("{:<16}{:<16}{:<16}{}\n", c_hex(entry.start), c_hex(entry.length),
                             c_hex(*entry.host_offset), entry.file != nullptr ? entry.file->filename() : ""));
    return {};
  }

  Console& console_;
  OutputFormat format_;
  fmt::memory_buffer line_;
};

class MapCommand final : public Command {
 public:
  [[nodiscard]] std::string_view name() const override { return "map"; }
  [[nodiscard]] std::string_view summary() const override { return "Show where the data of an image is"; }
  [[nodiscard]] std::string_view syntax() const override {
    return "[--object objectdef] [--image-opts] [-f fmt] [--start-offset=offset] [--max-length=len] [--output=ofmt] "
           "[-U] filename";
  }
  [[nodiscard]] CommandWork work() const override { return CommandWork::kRead; }
  void declare(OptionDeclarer& options) override;
  Result<void> prepare(const CommandContext& context, std::vector<std::string> operands) override;
  Result<int> run(CommandContext& context) coroutine_fn override;

 private:
  Result<int> walk(CommandContext& context, BlockNode& node) coroutine_fn;

  ImageOptions image_;
  std::string output_name_ = "human";
  uint64_t start_ = 0, max_length_ = kMaxOperandSize;
  std::string operand_;
  OutputFormat output_ = OutputFormat::kHuman;
};

void MapCommand::declare(OptionDeclarer& options) {
  const auto size_option = [&options](const char* names, uint64_t& target, const char* what, const char* help) {
    options.parsed(
        names, "BYTES",
        [&target, what](const std::string& text) -> Result<void> {
          target = COIMG_TRY(parse_operand_size(text, what));
          return {};
        },
        help);
  };
  image_.declare(options);
  options.text("--output", "FORMAT", output_name_, "human or json");
  size_option("-s,--start-offset", start_, "start offset", "Start at this position");
  size_option("-l,--max-length", max_length_, "max length", "Look at no more than this");
  options.describe_operands("FILE", "Ranges are bytes of the virtual disk.");
}

Result<void> MapCommand::prepare(const CommandContext& context, std::vector<std::string> operands) {
  operand_ = COIMG_TRY(take_one_operand(context, std::move(operands)));
  output_ = COIMG_TRY(parse_output_format(output_name_));
  return {};
}

Result<int> MapCommand::run(CommandContext& context) {
  const OpenFlags flags{.force_share = image_.force_share};
  const auto node = COIMG_TRY(open_operand(context, operand_, image_.format, image_.image_opts, flags));
  return close_after(*node, walk(context, *node));
}

Result<int> MapCommand::walk(CommandContext& context, BlockNode& node) {
  const uint64_t length = node.length();
  const uint64_t end = start_ < length ? start_ + std::min(max_length_, length - start_) : start_;
  MapPrinter printer(context.console, output_);
  printer.begin();
  MapEntry pending{.start = start_};  // an empty range is an entry as well, which scripts expect in JSON
  for (uint64_t position = start_; position < end;) {
    const ChainStatus found =
        COIMG_TRY(node.co_chain_status(position, end - position).with_context("Could not read file metadata"));
    const BlockStatus& status = found.status;
    const MapEntry entry{.start = position,
                         .length = status.bytes,
                         .depth = found.depth,
                         .present = status.allocated,
                         .zero = status.zero,
                         .data = status.data,
                         .host_offset = status.host_offset,
                         .file = status.host_offset.has_value() ? status.file : nullptr};
    position += entry.length;
    if (pending.length == 0) {
      pending = entry;
    } else if (pending.continued_by(entry)) {
      pending.length += entry.length;
    } else {
      COIMG_TRY(printer.print(pending));
      pending = entry;
    }
  }
  COIMG_TRY(printer.print(pending, MapPrinter::Position::kLast));
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_map_command() { return std::make_unique<MapCommand>(); }

}  // namespace coimg
