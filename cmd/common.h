// What the commands share: options that many have, cache modes, and opening the images that operands name.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "block/node.h"
#include "block/open.h"
#include "cmd/command.h"
#include "cmd/objects.h"
#include "cmd/option_declarer.h"

namespace coimg {

/// How the host's page cache is used (-t and -T).
struct CacheMode {
  bool direct = false;         ///< around the page cache
  bool no_flush = false;       ///< flush requests are dropped
  bool write_through = false;  ///< each write is made durable

  void apply_to(OpenFlags& flags) const;
};

/// Nothing for an unknown name.
std::optional<CacheMode> find_cache_mode(std::string_view name);
/// The same with "Invalid cache option: X" (-t) or "Invalid source cache option: X" (-T) as the error.
Result<CacheMode> parse_cache_mode(std::string_view name);
Result<CacheMode> parse_source_cache_mode(std::string_view name);

enum class OutputFormat { kHuman, kJson };
Result<OutputFormat> parse_output_format(std::string_view name);

/// The options that say how an operand is to be read. Commands declare those that they have.
struct ImageOptions {
  std::optional<std::string> format;
  bool image_opts = false;
  bool force_share = false;
  ObjectStore objects;

  void declare_format(OptionDeclarer& options, const char* names = "-f,--format");
  void declare_image_opts(OptionDeclarer& options);
  void declare_force_share(OptionDeclarer& options);
  void declare_object(OptionDeclarer& options);
  /// All four.
  void declare(OptionDeclarer& options);
};

/// Opens the image that `operand` names. Errors: "Could not open 'OPERAND': CAUSE".
Result<std::unique_ptr<BlockNode>> open_operand(const CommandContext& context, const std::string& operand,
                                                const std::optional<std::string>& format, bool image_opts,
                                                OpenFlags flags) coroutine_fn;

/// What a batch wants of every image that one of its jobs opens. Called by open_operand().
void note_opened(const CommandContext& context, BlockNode& node);

/// Closes `node` and returns `result`, or what closing ran into when there is no error yet.
template <typename T>
Result<T> close_after(BlockNode& node, Result<T> result) coroutine_fn {
  Result<void> closed = node.co_close();
  if (result.ok() && !closed.ok()) return std::move(closed).error();
  return result;
}

/// One image name, the way most commands are called. Errors: the usage error that names what was expected.
Result<std::string> take_one_operand(const CommandContext& context, std::vector<std::string> operands);

}  // namespace coimg
