// The I/O engine on io_uring.
//
// A request is a node on the stack of the coroutine that waits for it. Nodes queue in arrival order; the loop's submit
// hook moves as many as the ring has room for into submission entries and hands them to the kernel with one system
// call per loop iteration. No more are in flight than the completion ring has slots, so it cannot overflow.
//
// The ring's descriptor is an fd handler of the context: it is readable while there are completions. DEFER_TASKRUN is
// deliberately not used: completions that it holds back do not wake those who poll that descriptor (seen with Linux
// 6.18), so it needs a registered eventfd as well, and with that it measured no faster.
#include <liburing.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <climits>
#include <cstring>
#include <memory>

#include "coroutine/aio_context.h"
#include "coroutine/compiler.h"
#include "coroutine/coroutine.h"
#include "coroutine/fatal.h"
#include "coroutine/io_engine.h"

#if COIMG_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace coimg {

namespace {

/// Submission entries; the completion ring has twice as many. More in flight does not make a disk faster.
constexpr unsigned kSubmissionEntries = 128;

/// From this size on the worker pool makes the transfer. io_uring_enter() itself copies what the page cache holds,
/// starts read-ahead and pins the pages of direct I/O, and the loop stands still meanwhile: eight reads of 1 MiB stop
/// it for 0.7 ms, with a cold cache for 4 to 8 ms. With IOSQE_ASYNC the kernel's own workers do it, but they let a read
/// and a write of different files wait for each other: a conversion of 1.5 GiB took 1.1 s with them and 0.8 s with the
/// pool.
///
/// Measured on ext4 (Linux 6.18, 2 processors, 8 requests in flight, page cache warm unless noted); first the loop
/// thread's processor time for a request in us, in brackets MiB/s. The machine was busy and most figures are of one or
/// two runs: less than a factor of two between neighbours means nothing.
///
///                          worker pool      ring, inline
///     read   4 KiB          2.1 (340)        1.0 (1400)
///     read  64 KiB          5.1 (4100)       3.3 (6500)
///     read 128 KiB          2.3 (5600)       5.9 (11400)
///     read   1 MiB          6.4 (18500)     45.0 (8800)
///     read   1 MiB, direct   22 (1080)        62 (1500)
///     write  4 KiB          5.0 (370)        1.9 (920)
///     write  1 MiB           14 (9800)       8.7 (12700)
///     write  1 MiB, direct   17 (2860)        49 (3000)
///
/// The limit is where inline reads begin to cost the loop more than handing them over does.
constexpr uint64_t kLargeBytes = 128 * 1024;

struct Request {
  uint8_t opcode;
  int fd;
  const void* address = nullptr;
  uint64_t offset = 0;
  uint32_t length = 0;
  uint32_t fsync_flags = 0;

  Coroutine* waiter = nullptr;
  int result = 0;
  bool done = false;
  Request* next = nullptr;
};

bool is_large(std::span<const iovec> iov) {
  uint64_t total = 0;
  for (const iovec& part : iov) {
    if (part.iov_len >= kLargeBytes) return true;
    total += part.iov_len;
    if (total >= kLargeBytes) return true;
  }
  return false;
}

#if COIMG_TSAN
/// The library maps rings with system calls of its own, so ThreadSanitizer takes a new ring for the old one of another
/// thread when it gets the same address.
char ring_mappings;
void note_new_ring() { __tsan_acquire(&ring_mappings); }
void note_ring_goes() { __tsan_release(&ring_mappings); }
#else
void note_new_ring() {}
void note_ring_goes() {}
#endif

/// Gives the ring's memory back.
void tear_down_ring(io_uring& ring) {
  note_ring_goes();
  io_uring_queue_exit(&ring);
}

/// Sets the ring up for one thread that enters the kernel often anyway, or plainly on kernels before 6.0.
int set_up_ring(io_uring& ring) {
  const unsigned flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL;
  int result = io_uring_queue_init(kSubmissionEntries, &ring, flags);
  if (result != 0) result = io_uring_queue_init(kSubmissionEntries, &ring, 0);
  note_new_ring();
  return result;
}

/// Sends a no-op through the ring: a sandbox may allow io_uring_setup() and refuse io_uring_enter().
bool ring_works(io_uring& ring) {
  io_uring_sqe* const sqe = io_uring_get_sqe(&ring);
  io_uring_prep_nop(sqe);
  int result = 0;
  do {
    result = io_uring_submit_and_wait(&ring, 1);
  } while (result == -EINTR);
  io_uring_cqe* cqe = nullptr;
  if (result != 1 || io_uring_peek_cqe(&ring, &cqe) != 0) return false;
  io_uring_cqe_seen(&ring, cqe);
  return true;
}

bool has_fallocate(io_uring& ring) {
  io_uring_probe* const probe = io_uring_get_probe_ring(&ring);
  if (probe == nullptr) return false;  // before 5.6, which brought both
  const bool supported = io_uring_opcode_supported(probe, IORING_OP_FALLOCATE) != 0;
  io_uring_free_probe(probe);
  return supported;
}

class UringIoEngine final : public IoEngine {
 public:
  /// Takes `ring` over.
  UringIoEngine(AioContext& context, const io_uring& ring);
  ~UringIoEngine() override;
  UringIoEngine(const UringIoEngine&) = delete;
  UringIoEngine& operator=(const UringIoEngine&) = delete;

  IoEngineKind kind() const override { return IoEngineKind::kIoUring; }
  int64_t preadv(int fd, std::span<const iovec> iov, uint64_t offset) coroutine_fn override;
  int64_t pwritev(int fd, std::span<const iovec> iov, uint64_t offset, WorkerStrand* strand) coroutine_fn override;
  int fsync(int fd, bool data_only) coroutine_fn override;
  int fallocate(int fd, int mode, uint64_t offset, uint64_t bytes) coroutine_fn override;

 private:
  int64_t transfer(uint8_t opcode, int fd, std::span<const iovec> iov, uint64_t offset, WorkerStrand* strand)
      coroutine_fn;
  int perform(Request& request) coroutine_fn;
  void enqueue(Request& request);
  void flush();
  unsigned fill_submission_ring();
  bool submit();
  void reap();

  AioContext& context_;
  io_uring ring_;
  const bool has_fallocate_;
  /// For what is large, and what the ring cannot do.
  const std::unique_ptr<IoEngine> workers_ = make_thread_io_engine();
  /// Tries again to submit when the kernel was short of memory.
  std::unique_ptr<BottomHalf> retry_;

  Request* head_ = nullptr;  ///< not yet in the submission ring
  Request* tail_ = nullptr;
  unsigned in_flight_ = 0;  ///< in the submission ring or the kernel
};

UringIoEngine::UringIoEngine(AioContext& context, const io_uring& ring)
    : context_(context),
      ring_(ring),
      has_fallocate_(has_fallocate(ring_)),
      retry_(context.new_bottom_half([this] { flush(); }, "io_uring retry")) {
  context_.set_fd_handler(ring_.ring_fd, [this] { reap(); }, nullptr);
  context_.set_submit_hook([this] { flush(); });
}

UringIoEngine::~UringIoEngine() {
  assert(head_ == nullptr && in_flight_ == 0 && "an I/O engine is destroyed while coroutines wait for it");
  context_.set_submit_hook(nullptr);
  context_.set_fd_handler(ring_.ring_fd, nullptr, nullptr);
  tear_down_ring(ring_);
}

/// These answers mean "not without blocking" or "not through io_uring"; a plain system call gives the real one.
bool wants_worker(int result) { return result == -EAGAIN || result == -EOPNOTSUPP; }

int64_t UringIoEngine::transfer(uint8_t opcode, int fd, std::span<const iovec> iov, uint64_t offset,
                                WorkerStrand* strand) {
  const auto on_worker = [&]() coroutine_fn {
    return opcode == IORING_OP_READV ? workers_->preadv(fd, iov, offset) : workers_->pwritev(fd, iov, offset, strand);
  };
  if (is_large(iov)) return on_worker();
  Request request{.opcode = opcode,
                  .fd = fd,
                  .address = iov.data(),
                  .offset = offset,
                  .length = static_cast<uint32_t>(std::min<size_t>(iov.size(), IOV_MAX))};
  const int result = perform(request);
  return wants_worker(result) ? on_worker() : result;
}

int64_t UringIoEngine::preadv(int fd, std::span<const iovec> iov, uint64_t offset) {
  return transfer(IORING_OP_READV, fd, iov, offset, nullptr);
}

int64_t UringIoEngine::pwritev(int fd, std::span<const iovec> iov, uint64_t offset, WorkerStrand* strand) {
  return transfer(IORING_OP_WRITEV, fd, iov, offset, strand);
}

int UringIoEngine::fsync(int fd, bool data_only) {
  Request request{.opcode = IORING_OP_FSYNC, .fd = fd, .fsync_flags = data_only ? IORING_FSYNC_DATASYNC : 0};
  const int result = perform(request);
  return wants_worker(result) ? workers_->fsync(fd, data_only) : result;
}

int UringIoEngine::fallocate(int fd, int mode, uint64_t offset, uint64_t bytes) {
  if (has_fallocate_) {
    // The entry has the length where other operations have the buffer's address.
    Request request{.opcode = IORING_OP_FALLOCATE,
                    .fd = fd,
                    .address = reinterpret_cast<const void*>(static_cast<uintptr_t>(bytes)),
                    .offset = offset,
                    .length = static_cast<uint32_t>(mode)};
    const int result = perform(request);
    if (!wants_worker(result)) return result;
  }
  return workers_->fallocate(fd, mode, offset, bytes);
}

/// Queues the request and sleeps until it is complete; returns the result of the system call.
int UringIoEngine::perform(Request& request) {
  request.waiter = Coroutine::self();
  do {
    request.done = false;
    enqueue(request);
    Coroutine::yield();
    if (!request.done) fatal("coroutine '%s' was woken while its I/O is under way", request.waiter->name());
  } while (request.result == -EINTR);
  return request.result;
}

void UringIoEngine::enqueue(Request& request) {
  request.next = nullptr;
  (tail_ == nullptr ? head_ : tail_->next) = &request;
  tail_ = &request;
}

/// The submit hook.
void UringIoEngine::flush() {
  while (fill_submission_ring() > 0) {
    if (!submit()) return;
  }
}

/// Moves queued requests into the submission ring; returns how many entries wait there for submit().
unsigned UringIoEngine::fill_submission_ring() {
  const unsigned limit = *ring_.cq.kring_entries;
  while (head_ != nullptr && in_flight_ < limit) {
    io_uring_sqe* const sqe = io_uring_get_sqe(&ring_);
    if (sqe == nullptr) break;
    Request& request = *head_;
    head_ = request.next;
    if (head_ == nullptr) tail_ = nullptr;
    io_uring_prep_rw(request.opcode, sqe, request.fd, request.address, request.length, request.offset);
    sqe->fsync_flags = request.fsync_flags;
    io_uring_sqe_set_data(sqe, &request);
    ++in_flight_;
  }
  return io_uring_sq_ready(&ring_);
}

/// Hands the submission ring to the kernel. Returns false when it takes no more for now; retry_ comes back to it.
bool UringIoEngine::submit() {
  while (io_uring_sq_ready(&ring_) > 0) {
    const int result = io_uring_submit(&ring_);
    if (result > 0 || result == -EINTR) continue;
    if (result != 0 && result != -EAGAIN && result != -EBUSY && result != -ENOMEM) {
      fatal("io_uring_enter failed: %s", std::strerror(-result));  // NOLINT(concurrency-mt-unsafe)
    }
    retry_->schedule_idle();
    return false;
  }
  return true;
}

/// The fd handler: enters the coroutines whose requests are complete. What they ask for next goes out with the next
/// submit hook, so this ends even when every answer makes a new request.
void UringIoEngine::reap() {
  io_uring_cqe* cqe = nullptr;
  while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
    auto& request = *static_cast<Request*>(io_uring_cqe_get_data(cqe));
    request.result = cqe->res;
    request.done = true;
    io_uring_cqe_seen(&ring_, cqe);
    --in_flight_;
    request.waiter->enter();
  }
}

}  // namespace

std::unique_ptr<IoEngine> make_uring_io_engine(AioContext& context) {
  io_uring ring{};
  if (set_up_ring(ring) != 0) return nullptr;
  if (!ring_works(ring)) {
    tear_down_ring(ring);
    return nullptr;
  }
  return std::make_unique<UringIoEngine>(context, ring);
}

}  // namespace coimg
