// The worker pool: one FIFO of jobs and detached threads that come and go with the load.
//
// A job is a node on the stack of the coroutine that waits for it, so submitting allocates nothing. The pool's state
// lives in static storage and is never destroyed: a worker that is just ending may still touch it during exit.
#include "coroutine/worker_pool.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <new>
#include <system_error>
#include <thread>

#include "coroutine/aio_context.h"
#include "coroutine/compiler.h"
#include "coroutine/coroutine.h"
#include "coroutine/fatal.h"
#include "coroutine/thread_mutex.h"
#include "coroutine/wait_list.h"

namespace coimg {

namespace {

/// How long a thread without work stays, so that a busy second after a quiet one starts no threads.
constexpr auto kIdleTime = std::chrono::seconds(10);
/// Fewest threads allowed: enough requests for one SSD, even on a machine with one processor.
constexpr unsigned kMinBound = 16;

/// The jobs that a thread has submitted and that are not yet settled: run, and the waiter scheduled. The thread may not
/// go before, as they use its context and the stacks of its coroutines. Made after the thread's context and therefore
/// destroyed before it, also when the main thread calls exit() with jobs under way.
class ThreadJobs {
 public:
  ~ThreadJobs();
  unsigned unsettled = 0;  ///< guarded by the pool's mutex
};

COIMG_THREAD_LOCAL_ACCESSOR ThreadJobs& jobs_of_thread() {
  thread_local ThreadJobs jobs;
  return jobs;
}

/// Blocks all signals that come from outside for the calling thread, and thereby for the threads it starts in the
/// meantime. Those that an instruction of a thread itself raises go to their handlers.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t signals;
    sigfillset(&signals);
    for (const int own : {SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP}) sigdelset(&signals, own);
    pthread_sigmask(SIG_SETMASK, &signals, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

}  // namespace

struct WorkerJob {
  const std::function<void()>* work;
  Coroutine* waiter;
  AioContext* context;
  ThreadJobs* submitter;
  WorkerStrand* strand;
  std::atomic<bool> done{false};
  // Guarded by the pool's mutex.
  bool taken = false;   ///< by a thread
  bool queued = false;  ///< in the pool's queue; else, while not taken, it waits in its strand
  WorkerJob* previous = nullptr;
  WorkerJob* next = nullptr;
};

struct WorkerPool::Impl {
  ThreadMutex mutex;
  ThreadCondition work_ready;
  ThreadCondition thread_ended;
  ThreadCondition thread_settled;
  WaitList<WorkerJob> queue CO_GUARDED_BY(mutex);
  unsigned queued CO_GUARDED_BY(mutex) = 0;
  unsigned threads CO_GUARDED_BY(mutex) = 0;
  unsigned idle CO_GUARDED_BY(mutex) = 0;
  unsigned max_threads CO_GUARDED_BY(mutex) = std::max(kMinBound, 2 * std::thread::hardware_concurrency());
  bool stopping CO_GUARDED_BY(mutex) = false;

  void submit(WorkerJob& job);
  bool withdraw(WorkerJob& job);
  void start_thread();
  void work();
  WorkerJob* pop() CO_REQUIRES(mutex);
  void put(WorkerJob& job, bool first) CO_REQUIRES(mutex);
  void leave_strand(const WorkerJob& job) CO_REQUIRES(mutex);
  void execute(WorkerJob& job) noexcept CO_REQUIRES(mutex);
  void wait_until_settled(const ThreadJobs& jobs);
};

WorkerJob* WorkerPool::Impl::pop() {
  WorkerJob* const job = queue.pop_front();
  if (job == nullptr) return nullptr;
  job->taken = true;
  job->queued = false;
  --queued;
  return job;
}

void WorkerPool::Impl::put(WorkerJob& job, bool first) {
  if (first) {
    queue.push_front(job);
  } else {
    queue.push_back(job);
  }
  job.queued = true;
  ++queued;
}

/// After the job, or in its place. The strand may be gone as soon as the waiter of its last job runs.
void WorkerPool::Impl::leave_strand(const WorkerJob& job) {
  if (job.strand == nullptr) return;
  WorkerJob* const next = job.strand->waiting_.pop_front();
  job.strand->busy_ = next != nullptr;
  if (next != nullptr) put(*next, true);
}

/// Runs a job that pop() returned; gives the lock up meanwhile.
void WorkerPool::Impl::execute(WorkerJob& job) noexcept {
  mutex.unlock();
  trace("worker_start", job.waiter);
  (*job.work)();
  trace("worker_done", job.waiter);
  if (job.strand != nullptr) {
    const ThreadMutexGuard hold(mutex);
    leave_strand(job);
  }
  // The node is gone as soon as the waiter runs.
  ThreadJobs& submitter = *job.submitter;
  job.done.store(true, std::memory_order_release);
  job.context->co_schedule(job.waiter);
  mutex.lock();
  if (--submitter.unsettled == 0) thread_settled.notify_all();
}

void WorkerPool::Impl::wait_until_settled(const ThreadJobs& jobs) {
  const ThreadMutexGuard hold(mutex);
  while (jobs.unsettled != 0) thread_settled.wait(mutex);
}

void WorkerPool::Impl::submit(WorkerJob& job) {
  bool start = false;
  {
    const ThreadMutexGuard hold(mutex);
    ++job.submitter->unsettled;
    if (job.strand != nullptr && std::exchange(job.strand->busy_, true)) {
      job.strand->waiting_.push_back(job);
      return;
    }
    put(job, false);
    // A thread that was signalled counts as idle until it runs, hence the comparison with all queued jobs.
    start = queued > idle && threads < max_threads;
    if (start) ++threads;
  }
  if (start) {
    start_thread();
  } else {
    work_ready.notify_one();
  }
}

/// Takes a job back that no thread has begun; returns whether that is so.
bool WorkerPool::Impl::withdraw(WorkerJob& job) {
  const ThreadMutexGuard hold(mutex);
  if (job.taken) return false;
  if (job.queued) {
    queue.remove(job);
    --queued;
    leave_strand(job);
  } else {
    job.strand->waiting_.remove(job);
  }
  if (--job.submitter->unsettled == 0) thread_settled.notify_all();
  return true;
}

/// Starts the thread that `threads` already counts. When the system has no more threads to give, those that run serve
/// the queue; when none runs, the caller does the work itself: slow, but it goes on.
void WorkerPool::Impl::start_thread() {
  try {
    const SignalsBlocked blocked;
    std::thread([this] { work(); }).detach();
    return;
  } catch (const std::system_error&) {
  }
  const ThreadMutexGuard hold(mutex);
  --threads;
  while (threads == 0) {
    WorkerJob* const job = pop();
    if (job == nullptr) break;
    execute(*job);
  }
}

void WorkerPool::Impl::work() {
  const ThreadMutexGuard hold(mutex);
  while (threads <= max_threads) {  // else the bound was lowered
    if (WorkerJob* const job = pop(); job != nullptr) {
      execute(*job);
      continue;
    }
    if (stopping) break;
    ++idle;
    const bool woken = work_ready.wait_for(mutex, kIdleTime);
    --idle;
    if (!woken && queue.empty()) break;
  }
  --threads;
  if (!queue.empty()) work_ready.notify_one();  // this thread may have been the one that was signalled for it
  thread_ended.notify_all();
}

namespace {

alignas(WorkerPool::Impl) unsigned char impl_storage[sizeof(WorkerPool::Impl)];

/// A forked child has the pool's memory but none of its threads, and perhaps a mutex that nobody will unlock.
void renew_in_child() {
  new (impl_storage) WorkerPool::Impl;
  jobs_of_thread().unsettled = 0;
}

ThreadJobs::~ThreadJobs() {
  std::launder(reinterpret_cast<WorkerPool::Impl*>(impl_storage))->wait_until_settled(*this);
}

}  // namespace

WorkerPool::WorkerPool() : impl_(new(impl_storage) Impl) {
  // ThreadSanitizer starts no threads in forked children, and takes the parent's threads for racing with them.
  if (!COIMG_TSAN) pthread_atfork(nullptr, nullptr, renew_in_child);
}

/// Runs at process exit: lets running and queued jobs finish, as they use memory that exit is about to take away.
WorkerPool::~WorkerPool() {
  const ThreadMutexGuard hold(impl_->mutex);
  impl_->stopping = true;
  impl_->work_ready.notify_all();
  while (impl_->threads != 0) impl_->thread_ended.wait(impl_->mutex);
}

WorkerPool& WorkerPool::instance() {
  static WorkerPool pool;
  return pool;
}

void WorkerPool::run(const std::function<void()>& job, WorkerStrand* strand) {
  static_cast<void>(run_until(Deadline::never(), job, strand));
}

bool WorkerPool::run_until(const Deadline& deadline, const std::function<void()>& job, WorkerStrand* strand) {
  WorkerJob node{.work = &job,
                 .waiter = Coroutine::self(),
                 .context = &AioContext::current(),
                 .submitter = &jobs_of_thread(),
                 .strand = strand};
  trace("worker_submit", node.waiter);
  impl_->submit(node);
  if (!yield_until(deadline, [&] { return impl_->withdraw(node); })) return false;
  if (!node.done.load(std::memory_order_acquire)) {
    fatal("coroutine '%s' was woken while a worker runs its job", node.waiter->name());
  }
  return true;
}

unsigned WorkerPool::max_threads() const {
  const ThreadMutexGuard hold(impl_->mutex);
  return impl_->max_threads;
}

void WorkerPool::set_max_threads(unsigned count) {
  const ThreadMutexGuard hold(impl_->mutex);
  impl_->max_threads = std::max(count, 1U);
  impl_->work_ready.notify_all();
}

}  // namespace coimg
