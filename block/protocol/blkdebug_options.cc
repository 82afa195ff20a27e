// Rules come as options,
//
//     inject-error.0.event=l2_load,inject-error.0.errno=28,set-state.0.event=...
//
// or as the sections of a file, of which each is one rule:
//
//     [inject-error]
//     event = "l2_load"
//     errno = "28"
#include "block/protocol/blkdebug_options.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <utility>

#include <fmt/format.h>

#include "block/util/math.h"

namespace coimg {

namespace {

constexpr std::string_view kInjectError = "inject-error";
constexpr std::string_view kSetState = "set-state";

/// The largest request alignment that nodes support.
constexpr uint64_t kMaxAlign = kMiB;

/// Limits of this size and above are out of what one request can have anyway.
constexpr uint64_t kMaxLimit = uint64_t{1} << 31;

Error bad_value(std::string_view value) { return {EINVAL, fmt::format("invalid parameter value: {}", value)}; }

// --- single rules --------------------------------------------------------------------------------------------------

Result<DebugEvent> take_event(Options& options) {
  const auto name = options.take_text("event");
  if (!name) return Error(EINVAL, "Missing event name for rule");
  if (const auto event = find_debug_event(*name)) return *event;
  return bad_value(*name);
}

Result<unsigned> take_state(Options& options, std::string_view key) {
  const auto state = COIMG_TRY(options.take_number(key)).value_or(0);
  if (state < 0 || state > INT32_MAX) return Error(EINVAL, fmt::format("Parameter '{}' expects a number", key));
  return static_cast<unsigned>(state);
}

Result<unsigned> parse_io_type(std::string_view name) {
  if (name == "read") return unsigned{kBlkdebugRead};
  if (name == "write") return unsigned{kBlkdebugWrite};
  if (name == "write-zeroes") return unsigned{kBlkdebugWriteZeroes};
  if (name == "discard") return unsigned{kBlkdebugDiscard};
  if (name == "flush") return unsigned{kBlkdebugFlush};
  if (name == "block-status") return unsigned{kBlkdebugBlockStatus};
  return bad_value(name);
}

Result<void> add_inject_error(Options& options, BlkdebugRules& rules) {
  InjectErrorRule rule;
  rule.event = COIMG_TRY(take_event(options));
  rule.state = COIMG_TRY(take_state(options, "state"));
  const int64_t errnum = COIMG_TRY(options.take_number("errno")).value_or(EIO);
  rule.errnum = errnum > 0 && errnum <= INT32_MAX ? static_cast<int>(errnum) : 0;
  if (const auto io = options.take_text("iotype")) rule.io = COIMG_TRY(parse_io_type(*io));
  if (const auto sector = COIMG_TRY(options.take_number("sector")).value_or(-1); sector >= 0) {
    rule.offset = checked_mul(static_cast<uint64_t>(sector), kSectorSize).value_or(UINT64_MAX);
  }
  rule.once = COIMG_TRY(options.take_bool("once")).value_or(false);
  rule.immediately = COIMG_TRY(options.take_bool("immediately")).value_or(false);
  rules.add(rule);
  return {};
}

Result<void> add_set_state(Options& options, BlkdebugRules& rules) {
  SetStateRule rule;
  rule.event = COIMG_TRY(take_event(options));
  rule.state = COIMG_TRY(take_state(options, "state"));
  rule.new_state = COIMG_TRY(take_state(options, "new_state"));
  rules.add(rule);
  return {};
}

bool is_rule_option(std::string_view section, std::string_view name) {
  if (name == "event" || name == "state") return true;
  if (section == kSetState) return name == "new_state";
  return name == "errno" || name == "sector" || name == "once" || name == "immediately" || name == "iotype";
}

Result<void> add_rule(std::string_view section, Options& options, BlkdebugRules& rules) {
  return section == kInjectError ? add_inject_error(options, rules) : add_set_state(options, rules);
}

// --- rules as options ----------------------------------------------------------------------------------------------

/// Rules are numbered from 0 without a gap; a single one needs no number.
Result<void> take_rules(Options& options, std::string_view section, BlkdebugRules& rules) {
  Options all = options.take_child(section);
  if (all.has(""))
    return Error(EINVAL, fmt::format("Block protocol 'blkdebug' doesn't support the option '{}'", section));
  const auto add = [&](Options rule) -> Result<void> {
    const auto unknown =
        std::ranges::find_if(rule.values(), [&](const auto& each) { return !is_rule_option(section, each.first); });
    if (unknown == rule.values().end()) return add_rule(section, rule, rules);
    return Error(EINVAL, fmt::format("[{}] section doesn't support the option '{}'", section, unknown->first));
  };
  if (all.empty()) return {};
  if (std::isdigit(static_cast<unsigned char>(all.values().begin()->first[0])) == 0) return add(std::move(all));
  for (unsigned index = 0;; ++index) {
    Options rule = all.take_child(std::to_string(index));
    if (rule.empty()) break;
    COIMG_TRY(add(std::move(rule)));
  }
  if (all.empty()) return {};
  return Error(EINVAL, fmt::format("Unused option '{}' for [{}]", all.values().begin()->first, section));
}

// --- rules as a file -----------------------------------------------------------------------------------------------

std::string_view trim_left(std::string_view text) {
  const size_t start = text.find_first_not_of(" \t\r");
  return start == std::string_view::npos ? std::string_view() : text.substr(start);
}

/// The value of `name = "value"`; what stands behind is not looked at. Empty where there are no quotes.
std::string_view quoted_value(std::string_view text) {
  text = trim_left(text);
  if (!text.starts_with('=')) return {};
  text = trim_left(text.substr(1));
  if (!text.starts_with('"')) return {};
  text.remove_prefix(1);
  return text.substr(0, text.find('"'));
}

/// The sections of a configuration file.
class ConfigReader {
 public:
  explicit ConfigReader(BlkdebugRules& rules) : rules_(rules) {}

  Result<void> read(std::string_view text) {
    while (!text.empty()) {
      const size_t end = text.find('\n');
      COIMG_TRY(read_line(text.substr(0, end)));
      text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    }
    return finish_section();
  }

 private:
  Result<void> read_line(std::string_view line) {
    if (line.empty() || line[0] == '#') return {};
    if (line[0] == '[') return begin_section(line);
    line = trim_left(line);
    if (line.empty()) return {};
    if (section_.empty()) return Error(EINVAL, "no group defined");
    const std::string name(line.substr(0, line.find_first_of(" \t")));
    if (!is_rule_option(section_, name)) return Error(EINVAL, fmt::format("Invalid parameter '{}'", name));
    options_.set(name, std::string(quoted_value(line.substr(name.size()))));
    return {};
  }

  /// A section may carry an identifier behind its name, which nobody needs.
  Result<void> begin_section(std::string_view line) {
    COIMG_TRY(finish_section());
    const std::string name(line.substr(1, line.find_first_of(" ]", 1) - 1));
    if (name != kInjectError && name != kSetState) {
      return Error(EINVAL, fmt::format("There is no option group '{}'", name));
    }
    section_ = name;
    return {};
  }

  Result<void> finish_section() {
    if (section_.empty()) return {};
    Options options = std::exchange(options_, {});
    return add_rule(section_, options, rules_);
  }

  BlkdebugRules& rules_;
  std::string section_;
  Options options_;
};

// --- limits and permissions ----------------------------------------------------------------------------------------

Error cannot_meet(std::string_view key, uint64_t value) {
  return {EINVAL, fmt::format("Cannot meet constraints with {} {}", key, value)};
}

Result<uint64_t> take_limit(Options& options, std::string_view key, uint64_t align) {
  const uint64_t limit = COIMG_TRY(options.take_size(key)).value_or(0);
  if (limit >= kMaxLimit || (align > 1 && limit % align != 0)) return cannot_meet(key, limit);
  return limit;
}

Result<unsigned> take_permissions(Options& options, std::string_view key) {
  Options list = options.take_child(key);
  unsigned permissions = 0;
  for (unsigned index = 0; !list.empty(); ++index) {
    const auto name = list.take_text(std::to_string(index));
    if (!name) return Error(EINVAL, fmt::format("Parameter '{}' is unexpected", list.values().begin()->first));
    if (*name == "consistent-read") {
      permissions |= kPermConsistentRead;
    } else if (*name == "write") {
      permissions |= kPermWrite;
    } else if (*name == "write-unchanged") {
      permissions |= kPermWriteUnchanged;
    } else if (*name == "resize") {
      permissions |= kPermResize;
    } else {
      return Error(EINVAL, fmt::format("Parameter '{}' does not accept value '{}'", key, *name));
    }
  }
  return permissions;
}

}  // namespace

Result<BlkdebugOptions> take_blkdebug_options(Options& options, std::string_view config_text) {
  BlkdebugOptions taken;
  taken.plain = options.empty();
  COIMG_TRY(ConfigReader(taken.rules).read(config_text));
  COIMG_TRY(take_rules(options, kInjectError, taken.rules));
  COIMG_TRY(take_rules(options, kSetState, taken.rules));
  taken.align = COIMG_TRY(options.take_size("align")).value_or(0);
  if (taken.align > kMaxAlign || (taken.align & (taken.align - 1)) != 0) return cannot_meet("align", taken.align);
  taken.max_transfer = COIMG_TRY(take_limit(options, "max-transfer", taken.align));
  taken.opt_write_zero = COIMG_TRY(take_limit(options, "opt-write-zero", taken.align));
  taken.max_write_zero = COIMG_TRY(take_limit(options, "max-write-zero", taken.align));
  taken.opt_discard = COIMG_TRY(take_limit(options, "opt-discard", taken.align));
  taken.max_discard = COIMG_TRY(take_limit(options, "max-discard", taken.align));
  taken.taken_permissions = COIMG_TRY(take_permissions(options, "take-child-perms"));
  taken.unshared_permissions = COIMG_TRY(take_permissions(options, "unshare-child-perms"));
  return taken;
}

Result<void> parse_blkdebug_name(std::string_view name, Options& options) {
  constexpr std::string_view kPrefix = "blkdebug:";
  if (!name.starts_with(kPrefix)) {
    options.set("x-image", std::string(name));
    return {};
  }
  name.remove_prefix(kPrefix.size());
  const size_t colon = name.find(':');
  if (colon == std::string_view::npos) return Error(EINVAL, "blkdebug requires both config file and image path");
  if (colon > 0) options.set("config", std::string(name.substr(0, colon)));
  options.set("x-image", std::string(name.substr(colon + 1)));
  return {};
}

}  // namespace coimg
