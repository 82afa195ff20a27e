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
  Ticket* next = nullptr;
};

CoRwlock::~CoRwlock() {
  const int owners = owners_.load(std::memory_order_relaxed);
  if (owners != 0) fatal("CoRwlock destroyed while %s holds it", owners < 0 ? "a writer" : "a reader");
}

/// Takes the last place in the line, releases `mutex_` and sleeps until the lock was granted.
void CoRwlock::wait_in_line(bool writer) {
  Ticket ticket{Coroutine::self(), writer};
  (tail_ != nullptr ? tail_->next : head_) = &ticket;
  tail_ = &ticket;
  mutex_.unlock();
  Coroutine::yield();
  if (!ticket.granted) fatal("coroutine '%s' was entered while it waits for a CoRwlock", ticket.coroutine->name());
}

/// Lets in those at the front of the line that the present owners allow.
void CoRwlock::grant_next() {
  while (head_ != nullptr) {
    const int owners = owners_.load(std::memory_order_relaxed);
    if (owners < 0 || (head_->writer && owners > 0)) return;
    Ticket* ticket = head_;
    head_ = ticket->next;
    if (head_ == nullptr) tail_ = nullptr;
    owners_.store(ticket->writer ? -1 : owners + 1, std::memory_order_relaxed);
    ticket->granted = true;
    co_wake(ticket->coroutine);
  }
}

void CoRwlock::rdlock() CO_NO_THREAD_SAFETY_ANALYSIS {
  mutex_.lock();
  const int owners = owners_.load(std::memory_order_relaxed);
  if (owners < 0 || head_ != nullptr) return wait_in_line(false);
  owners_.store(owners + 1, std::memory_order_relaxed);
  mutex_.unlock();
}

void CoRwlock::wrlock() CO_NO_THREAD_SAFETY_ANALYSIS {
  mutex_.lock();
  if (owners_.load(std::memory_order_relaxed) != 0) return wait_in_line(true);
  owners_.store(-1, std::memory_order_relaxed);
  mutex_.unlock();
}

void CoRwlock::upgrade() CO_NO_THREAD_SAFETY_ANALYSIS {
  mutex_.lock();
  assert_rdlocked();
  const int owners = owners_.load(std::memory_order_relaxed);
  if (owners == 1 && head_ == nullptr) {
    owners_.store(-1, std::memory_order_relaxed);
    mutex_.unlock();
    return;
  }
  // Two readers that upgrade must not wait for each other: each gives its read lock up and takes a place in the line.
  owners_.store(owners - 1, std::memory_order_relaxed);
  grant_next();
  wait_in_line(true);
}

void CoRwlock::downgrade() CO_NO_THREAD_SAFETY_ANALYSIS {
  mutex_.lock();
  assert_wrlocked();
  owners_.store(1, std::memory_order_relaxed);
  grant_next();
  mutex_.unlock();
}

void CoRwlock::unlock() CO_NO_THREAD_SAFETY_ANALYSIS {
  mutex_.lock();
  const int owners = owners_.load(std::memory_order_relaxed);
  if (owners == 0) fatal("coroutine '%s' unlocks a CoRwlock that nobody holds", Coroutine::self()->name());
  owners_.store(owners < 0 ? 0 : owners - 1, std::memory_order_relaxed);
  grant_next();
  mutex_.unlock();
}

void CoRwlock::assert_rdlocked() const {
  if (owners_.load(std::memory_order_relaxed) <= 0) fatal("a CoRwlock is not held for reading where it has to be");
}

void CoRwlock::assert_wrlocked() const {
  if (owners_.load(std::memory_order_relaxed) >= 0) fatal("a CoRwlock is not held for writing where it has to be");
}

}  // namespace coimg
