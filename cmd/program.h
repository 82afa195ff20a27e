// Program: under which name the program runs, and what follows from it.
#pragma once

#include <string>

#include "block/util/result.h"

namespace coimg {

/// Started as "qemu-img" the program stands in for it: help and version keep the shape that its callers parse. Started
/// as "qemu-io" it is the command io.
struct Program {
  std::string name;  ///< last component of argv[0]; the prefix of messages
  bool as_qemu_img = false;
  bool as_qemu_io = false;

  /// By the name, or under any other name by COIMG_COMPAT=qemu-img or qemu-io, which has the effect of such a link.
  static Program of_process(const char* argv0);
  static Program from_argv0(const char* argv0);

  /// "Try '... --help' for more information"
  [[nodiscard]] std::string help_hint() const;

  /// A mistake in the use of the command line: the message with the hint.
  [[nodiscard]] Error usage_error(std::string message) const;

  /// The lines of --version.
  [[nodiscard]] std::string version_text() const;
};

}  // namespace coimg
