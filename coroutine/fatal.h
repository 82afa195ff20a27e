// How the runtime ends the process when a program breaks its rules.
#pragma once

namespace coimg {

/// Prints "coimg: MESSAGE" to standard error and aborts. For bugs in the program only, never for bad input: the
/// message must name who did what, as it is all that a bug report will have. Allocates nothing.
[[noreturn]] void fatal(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace coimg
