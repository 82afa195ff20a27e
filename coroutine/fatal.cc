#include "coroutine/fatal.h"

#include <unistd.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace coimg {

void fatal(const char* format, ...) {
  char line[512] = "coimg: ";
  const size_t prefix = std::strlen(line);
  va_list arguments;
  va_start(arguments, format);
  const int wanted = std::vsnprintf(line + prefix, sizeof(line) - prefix - 1, format, arguments);
  va_end(arguments);
  size_t length = prefix + std::min<size_t>(wanted > 0 ? static_cast<size_t>(wanted) : 0, sizeof(line) - prefix - 2);
  line[length++] = '\n';
  // One write, so that the lines of two dying threads do not mix. There is nothing left to do when it fails.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line, length);
  std::abort();
}

}  // namespace coimg
