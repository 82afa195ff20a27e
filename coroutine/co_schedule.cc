// How coroutines get from where they were woken to the thread that enters them.
#include "coroutine/aio_context_impl.h"
#include "coroutine/coroutine_private.h"
#include "coroutine/fatal.h"

namespace coimg {
namespace {

/// A shuffled wake-up may be overtaken by so many others.
constexpr uint64_t kMaxShuffleSkip = 8;

}  // namespace

void AioContext::co_schedule(Coroutine* co) {
  Coroutine::Private& target = Coroutine::Private::of(co);
  target.claim_for_schedule();
  impl_->push_scheduled(&target);
}

void AioContext::Impl::push_scheduled(Coroutine::Private* co) {
  const CallerScope keep_alive(this);
  scheduled.push(co);
  enter_state->enqueue(BottomHalf::State::kScheduled);
}

void AioContext::Impl::enter_scheduled() {
  scheduled.take_all([this](Coroutine::Private* co) { runnable.push_back(co); });
  while (!runnable.empty()) {
    if (shuffle != nullptr) [[unlikely]]
      for (uint64_t skip = (*shuffle)() % kMaxShuffleSkip; skip > 0; --skip) runnable.rotate();
    Coroutine::Private* co = runnable.pop_front();
    clear_schedule(*co);
    co->enter();
  }
}

void AioContext::shuffle_wake_ups(uint64_t seed) {
  impl_->shuffle = seed != 0 ? std::make_unique<std::mt19937_64>(seed) : nullptr;
}

void co_wake(Coroutine* co) {
  Coroutine::Private& target = Coroutine::Private::of(co);
  AioContext* home = target.context.load(std::memory_order_relaxed);
  const ThreadState& thread = thread_state();
  if (thread.current == nullptr || thread.context != home || home->impl().shuffle != nullptr) {
    home->co_schedule(co);
    return;
  }
  target.claim_for_schedule();
  Coroutine::Private::of(thread.current).woken.push_back(&target);
}

void AioContext::reschedule_self(AioContext& target) {
  AioContext& here = AioContext::current();
  if (&here == &target) return;
  // Not before this coroutine has yielded, or the other thread could enter a coroutine that still runs here.
  Coroutine* self = Coroutine::self();
  bool sent = false;
  here.schedule_oneshot(
      [self, &target, &sent] {
        sent = true;
        target.co_schedule(self);
      },
      "reschedule coroutine");
  Coroutine::yield();
  if (!sent) fatal("coroutine '%s' was entered while it moves to another context", self->name());
}

}  // namespace coimg
