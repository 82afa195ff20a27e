// Tickets stand in one line, readers and writers alike. Whoever changes the number of owners lets in from the front
// what fits: any number of readers, or one writer. A newcomer goes past the line only when it is empty; so nobody
// starves.
//
// While there is no line, taking and giving back is one atomic exchange, which is what most of it is.
#include "coroutine/co_rwlock.h"

#include "coroutine/aio_context.h"
#include "coroutine/coroutine.h"
#include "coroutine/fatal.h"

namespace coimg {

namespace {
constexpr int kLine = 1, kReader = 2, kWriter = -2;
}  // namespace

/// Lives on the stack of the coroutine that waits.
struct CoRwlock::Ticket {
  Coroutine* coroutine;
  bool writer;
  bool granted = false;
  Ticket* previous = nullptr;
  Ticket* next = nullptr;
};

/// Holds the mutex, and nobody gets past it meanwhile. Afterwards the line is what it was made.
class CO_SCOPED_CAPABILITY CoRwlock::Line {
 public:
  explicit Line(CoRwlock& lock) CO_ACQUIRE(lock.mutex_) CO_NO_THREAD_SAFETY_ANALYSIS : lock_(lock) {
    lock.mutex_.lock();
    lock.state_.fetch_or(kLine, std::memory_order_acquire);
  }
  ~Line() CO_RELEASE() CO_NO_THREAD_SAFETY_ANALYSIS {
    if (lock_.line_.empty()) lock_.state_.fetch_and(~kLine, std::memory_order_release);
    lock_.mutex_.unlock();
  }
  Line(const Line&) = delete;
  Line& operator=(const Line&) = delete;

 private:
  CoRwlock& lock_;
};

CoRwlock::~CoRwlock() {
  if (owners() != 0) fatal("CoRwlock destroyed while %s holds it", owners() < 0 ? "a writer" : "a reader");
}

/// By who has a Line.
void CoRwlock::set_owners(int owners) { state_.store((owners * kReader) | kLine, std::memory_order_relaxed); }

/// Sleeps until the lock was granted to a ticket that stands in the line.
bool CoRwlock::wait_in_line(Ticket& ticket, const Deadline& deadline) {
  if (!yield_until(deadline, [&] { return withdraw(ticket); })) return false;
  if (!ticket.granted) fatal("coroutine '%s' was entered while it waits for a CoRwlock", ticket.coroutine->name());
  return true;
}

/// Takes the ticket out of the line when its time is up. Those behind it may have waited only for its sake.
bool CoRwlock::withdraw(Ticket& ticket) {
  const Line hold(*this);
  if (ticket.granted) return false;
  line_.remove(ticket);
  grant_next();
  return true;
}

/// Lets in those at the front of the line that the present owners allow.
void CoRwlock::grant_next() {
  while (!line_.empty()) {
    const bool writer = line_.front()->writer;
    if (owners() < 0 || (writer && owners() > 0)) return;
    Ticket* const ticket = line_.pop_front();
    set_owners(writer ? -1 : owners() + 1);
    ticket->granted = true;
    co_wake(ticket->coroutine);
  }
}

/// Takes the lock if there is room and nobody waits.
bool CoRwlock::take_at_once(bool writer) {
  int state = state_.load(std::memory_order_relaxed);
  while (writer ? state == 0 : state >= 0 && (state & kLine) == 0) {
    const int taken = writer ? kWriter : state + kReader;
    if (state_.compare_exchange_weak(state, taken, std::memory_order_acquire, std::memory_order_relaxed)) return true;
  }
  return false;
}

bool CoRwlock::acquire(bool writer, const Deadline& deadline) {
  if (take_at_once(writer)) [[likely]]
    return true;
  Ticket ticket{Coroutine::self(), writer};
  {
    const Line hold(*this);
    if (line_.empty() && (writer ? owners() == 0 : owners() >= 0)) {
      set_owners(writer ? -1 : owners() + 1);
      return true;
    }
    line_.push_back(ticket);
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
    const Line hold(*this);
    if (owners() == 1 && line_.empty()) {
      set_owners(-1);
      return;
    }
    // Two readers that upgrade must not wait for each other: each gives its read lock up and takes a place in the line.
    set_owners(owners() - 1);
    line_.push_back(ticket);
    grant_next();
  }
  wait_in_line(ticket, Deadline::never());
}

void CoRwlock::downgrade() CO_NO_THREAD_SAFETY_ANALYSIS {
  assert_wrlocked();
  const Line hold(*this);
  set_owners(1);
  grant_next();
}

void CoRwlock::unlock() CO_NO_THREAD_SAFETY_ANALYSIS {
  int state = state_.load(std::memory_order_relaxed);
  while ((state & kLine) == 0 && state != 0) {
    const int rest = state < 0 ? 0 : state - kReader;
    if (state_.compare_exchange_weak(state, rest, std::memory_order_release, std::memory_order_relaxed)) return;
  }
  const Line hold(*this);
  if (owners() == 0) fatal("coroutine '%s' unlocks a CoRwlock that nobody holds", Coroutine::self()->name());
  set_owners(owners() < 0 ? 0 : owners() - 1);
  grant_next();
}

void CoRwlock::assert_rdlocked() const {
  if (owners() <= 0) fatal("a CoRwlock is not held for reading where it has to be");
}

void CoRwlock::assert_wrlocked() const {
  if (owners() >= 0) fatal("a CoRwlock is not held for writing where it has to be");
}

}  // namespace coimg
