// IoVerb: one I/O command.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cmd/io/session.h"

namespace coimg {

struct IoVerb {
  /// `words` are those behind the name. Context: coroutine.
  using Run = IoStatus (*)(IoSession& session, std::span<const std::string> words);

  std::string_view name;
  std::string_view alias = {};  ///< a shorter name; empty for none
  Run run = nullptr;
  int least_words = 0;
  std::optional<int> most_words = {};  ///< nothing: any number
  bool needs_image = true;
  bool writes = false;  ///< only for an image that is writable
  std::string_view syntax = {}, summary = {};
  std::string_view help = {};  ///< complete lines
};

/// "NAME SYNTAX -- SUMMARY", without newline.
std::string describe_io_verb(const IoVerb& verb);
/// All of them, sorted by name.
std::span<const IoVerb> io_verbs();
/// By name or alias; null when there is none.
const IoVerb* find_io_verb(std::string_view name);

// What the parts of the tool contribute.
std::vector<IoVerb> make_read_verbs();
std::vector<IoVerb> make_write_verbs();
std::vector<IoVerb> make_image_verbs();
std::vector<IoVerb> make_open_verbs();
std::vector<IoVerb> make_breakpoint_verbs();
std::vector<IoVerb> make_process_verbs();

/// Says what is wrong with the words of a command, and shows its syntax. `mistake` is getopt's, empty for none.
IoStatus io_usage(IoSession& session, const IoVerb& verb, std::string_view mistake = {});

}  // namespace coimg
