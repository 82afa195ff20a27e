#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "coroutine/aio_context.h"
#include "coroutine/fatal.h"

namespace coimg {

EventNotifier::EventNotifier() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (fd_ < 0) fatal("cannot create an eventfd: %s", std::strerror(errno));
}

EventNotifier::~EventNotifier() { ::close(fd_); }

void EventNotifier::set() {
  const int saved_errno = errno;  // it may run in a signal handler
  const uint64_t one = 1;
  // EAGAIN means that the counter is at its end, thus set; a signal cannot interrupt a nonblocking write.
  [[maybe_unused]] const ssize_t written = ::write(fd_, &one, sizeof(one));
  errno = saved_errno;
}

bool EventNotifier::test_and_clear() {
  uint64_t count;
  return ::read(fd_, &count, sizeof(count)) == static_cast<ssize_t>(sizeof(count));
}

}  // namespace coimg
