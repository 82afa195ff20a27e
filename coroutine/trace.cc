#include "coroutine/trace.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "coroutine/coroutine.h"
#include "coroutine/fatal.h"

namespace coimg {
namespace {

int trace_fd = -1;

bool open_trace() {
  const char* const target = std::getenv("COIMG_TRACE");
  if (target == nullptr || *target == '\0') return false;
  if (std::strcmp(target, "stderr") == 0) {
    trace_fd = STDERR_FILENO;
    return true;
  }
  trace_fd = ::open(target, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (trace_fd < 0) fatal("COIMG_TRACE: cannot open '%s': %s", target, std::strerror(errno));
  return true;
}

[[gnu::format(printf, 2, 3)]] void write_line(const char* event, const char* format, ...) {
  const int saved_errno = errno;
  timespec now;
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  char line[256];
  const auto limit = static_cast<int>(sizeof(line) - 1);
  int length = std::snprintf(line, sizeof(line), "%lld.%06ld %ld %s ", static_cast<long long>(now.tv_sec),
                             now.tv_nsec / 1000, ::syscall(SYS_gettid), event);
  va_list arguments;
  va_start(arguments, format);
  length += std::vsnprintf(line + length, sizeof(line) - static_cast<size_t>(length), format, arguments);
  va_end(arguments);
  length = std::min(length, limit);  // cut off
  line[length] = '\n';
  // Nobody can be told when it fails.
  [[maybe_unused]] const ssize_t written = ::write(trace_fd, line, static_cast<size_t>(length) + 1);
  errno = saved_errno;
}

}  // namespace

bool trace_enabled = open_trace();

void write_trace(const char* event, const Coroutine* subject, const char* by) {
  const char* const name = subject != nullptr ? subject->name() : "code outside of coroutines";
  const auto* const address = static_cast<const void*>(subject);
  if (by == nullptr) return write_line(event, "coroutine='%s' %p", name, address);
  write_line(event, "coroutine='%s' %p by='%s'", name, address, by);
}

void write_trace(const char* event, const char* kind, const char* name, const void* subject) {
  write_line(event, "%s='%s' %p", kind, name, subject);
}

}  // namespace coimg
