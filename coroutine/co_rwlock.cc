// Tickets stand in one line, readers and writers alike. Whoever changes the number of owners lets in from the front
// what fits: any number of readers, or one writer. A newcomer goes past the line only when it is empty; so nobody
// starves.
#include "coroutine/co_rwlock.h"

#include "coroutine/aio_context.h"
#include "coroutine/coroutine.h"
#include "coroutine/fatal.h"

namespace coimg {

/// Lives on the stack of the coroutine that waits.
struct CoRwlock::Ticket {
  Coroutine* coroutine;
  bool writer;
  bool granted = false;
  Ticket* previous = nullptr;
  Ticket* next = nullptr;
};

CoRwlock::~CoRwlock() {
  const int owners = owners_.load(std::memory_order_relaxed);
  if (owners != 0) fatal("CoRwlock destroyed while %s holds it", owners < 0 ? "a writer" : "a reader");
}

/// Sleeps until the lock was granted to a ticket that stands in the line.
bool CoRwlock::wait_in_line(Ticket& ticket, const Deadline& deadline) {
  if (!yield_until(deadline, [&] { return withdraw(ticket); })) return false;
  if (!ticket.granted) fatal("coroutine '%s' was entered while it waits for a CoRwlock", ticket.coroutine->name());
  return true;
}

/// Takes the ticket out of the line when its time is up. Those behind it may have waited only for its sake.
bool CoRwlock::withdraw(Ticket& ticket) {
  const ThreadMutexGuard hold(mutex_);
  if (ticket.granted) return false;
  line_.remove(ticket);
  grant_next();
  return true;
}

/// Lets in those at the front of the line that the present owners allow.
void CoRwlock::grant_next() {
  while (!line_.empty()) {
    const int owners = owners_.load(std::memory_order_relaxed);
    const bool writer = line_.front()->writer;
    if (owners < 0 || (writer && owners > 0)) return;
    Ticket* const ticket = line_.pop_front();
    owners_.store(writer ? -1 : owners + 1, std::memory_order_relaxed);
    ticket->granted = true;
    co_wake(ticket->coroutine);
  }
}

bool CoRwlock::acquire(bool writer, const Deadline& deadline) {
  Ticket ticket{Coroutine::self(), writer};
  {
    const ThreadMutexGuard hold(mutex_);
    line_.push_back(ticket);
    const int owners = owners_.load(std::memory_order_relaxed);
    if (line_.front() == &ticket && (writer ? owners == 0 : owners >= 0)) {
      line_.remove(ticket);
      owners_.store(writer ? -1 : owners + 1, std::memory_order_relaxed);
      return true;
    }
  }
  return wait_in_line(ticket, deadline);
}

void CoRwlock::rdlock() CO_NO_THREAD_SAFETY_ANALYSIS { acquire(false, Deadline::never()); }

void CoRwlock::wrlock() CO_NO_THREAD_SAFETY_ANALYSIS { acquire(true, Deadline::never()); }

bool CoRwlock::try_rdlock_until(const Deadline& deadline) CO_NO_THREAD_SAFETY_ANALYSIS {
  return acquire(false, deadline);
}

bool CoRwlock::try_wrlock_until(const Deadline& deadline) CO_NO_THREAD_SAFETY_ANALYSIS {
  return acquire(true, deadline);
}

void CoRwlock::upgrade() CO_NO_THREAD_SAFETY_ANALYSIS {
  assert_rdlocked();
  Ticket ticket{Coroutine::self(), true};
  {
    const ThreadMutexGuard hold(mutex_);
    const int owners = owners_.load(std::memory_order_relaxed);
    if (owners == 1 && line_.empty()) {
      owners_.store(-1, std::memory_order_relaxed);
      return;
    }
    // Two readers that upgrade must not wait for each other: each gives its read lock up and takes a place in the line.
    owners_.store(owners - 1, std::memory_order_relaxed);
    line_.push_back(ticket);
    grant_next();
  }
  wait_in_line(ticket, Deadline::never());
}

void CoRwlock::downgrade() CO_NO_THREAD_SAFETY_ANALYSIS {
  assert_wrlocked();
  const ThreadMutexGuard hold(mutex_);
  owners_.store(1, std::memory_order_relaxed);
  grant_next();
}

void CoRwlock::unlock() CO_NO_THREAD_SAFETY_ANALYSIS {
  const ThreadMutexGuard hold(mutex_);
  const int owners = owners_.load(std::memory_order_relaxed);
  if (owners == 0) fatal("coroutine '%s' unlocks a CoRwlock that nobody holds", Coroutine::self()->name());
  owners_.store(owners < 0 ? 0 : owners - 1, std::memory_order_relaxed);
  grant_next();
}

void CoRwlock::assert_rdlocked() const {
  if (owners_.load(std::memory_order_relaxed) <= 0) fatal("a CoRwlock is not held for reading where it has to be");
}

void CoRwlock::assert_wrlocked() const {
  if (owners_.load(std::memory_order_relaxed) >= 0) fatal("a CoRwlock is not held for writing where it has to be");
}

}  // namespace coimg
