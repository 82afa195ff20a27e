#include "cmd/snapshot_choice.h"

#include <fmt/format.h>

#include <cerrno>
#include <string_view>

#include "block/options.h"

namespace coimg {

void SnapshotChoice::declare(OptionDeclarer& options) {
  options.parsed(
      "-l", "SNAPSHOT", [this](const std::string& text) { return parse(text); }, "Read an internal snapshot");
}

Result<void> SnapshotChoice::parse(const std::string& text) {
  constexpr std::string_view kPrefix = "snapshot.";
  choices_.clear();
  if (!text.starts_with(kPrefix)) {
    choices_ = {{.id = text, .name = {}}, {.id = {}, .name = text}};
    return {};
  }
  SnapshotSelector selector;
  Options options = COIMG_TRY(parse_key_value_options(text));
  selector.id = options.take_text("snapshot.id");
  selector.name = options.take_text("snapshot.name");
  if (!options.empty()) {
    return Error(EINVAL, fmt::format("Invalid parameter '{}'\nFailed in parsing snapshot param '{}'",
                                     options.values().begin()->first, text));
  }
  choices_ = {selector};
  return {};
}

Result<void> SnapshotChoice::show(BlockNode& node) const {
  Result<void> shown;
  for (const SnapshotSelector& selector : choices_) {
    shown = node.co_show_snapshot(selector);
    if (shown.ok() || shown.error().errnum() != ENOENT) break;
    shown = Error(ENOENT, "Can't find snapshot");
  }
  return std::move(shown).with_context("Failed to load snapshot");
}

}  // namespace coimg
