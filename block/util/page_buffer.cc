// A page that cannot be had raises SIGBUS. The handler puts a page of zeros in its place and notes that in the buffer's
// slot, so that the instruction goes on. The kernel needs no handler: a system call with such a page fails with EFAULT.
//
// Slots are static, so that the handler, which can run at any time on any thread, never sees one go.
#include "block/util/page_buffer.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cassert>
#include <cerrno>
#include <mutex>
#include <new>
#include <optional>

#include "block/util/math.h"

// Linux 5.14; older headers do not have it, older kernels refuse it.
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
// Linux 6.5. Where headers do not know it, on architectures that number their system calls alike.
#if !defined(SYS_cachestat) && (defined(__x86_64__) || defined(__aarch64__) || defined(__riscv))
#define SYS_cachestat 451
#endif

namespace coimg {

/// A buffer's place in memory, for the handler.
struct PageBuffer::Slot {
  std::atomic<uintptr_t> begin = 0;  ///< 0: free
  std::atomic<uintptr_t> end = 0;
  std::atomic<bool> lost = false;
};

namespace {

/// One page in so many that is not in the page cache is fetched by a fault.
constexpr uint64_t kFewMissing = 32;

size_t page_bytes() {
  static const auto bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

bool put_own_memory(void* at, size_t bytes) {
  return mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
}

/// Whether the byte is in the page cache. Asking for it can set the kernel reading ahead from there.
bool is_byte_cached(int fd, uint64_t offset) {
  char byte = 0;
  iovec piece{.iov_base = &byte, .iov_len = 1};
  return preadv2(fd, &piece, 1, static_cast<off_t>(offset), RWF_NOWAIT) == 1;
}

}  // namespace

/// The slots of all buffers, and what to do about a lost page.
struct LostPages {
  static constexpr size_t kMaxBuffers = 256;
  static constinit inline std::array<PageBuffer::Slot, kMaxBuffers> slots{};
  static constinit inline struct sigaction previous{};
  static constinit inline size_t page = 0;

  static void on_sigbus(int signal_number, siginfo_t* info, void*) {
    const auto at = reinterpret_cast<uintptr_t>(info->si_addr);
    for (PageBuffer::Slot& slot : slots) {
      if (at < slot.begin.load(std::memory_order_acquire) || at >= slot.end.load(std::memory_order_acquire)) continue;
      slot.lost.store(true, std::memory_order_release);
      if (put_own_memory(reinterpret_cast<void*>(at / page * page), page)) return;
    }
    // Whoever was responsible before gets it: the instruction runs into it again, or somebody has sent it.
    sigaction(signal_number, &previous, nullptr);
    if (info->si_code <= 0) raise(signal_number);
  }

  static PageBuffer::Slot* take_slot(std::span<const std::byte> memory) {
    static std::once_flag once;
    std::call_once(once, [] {
      page = page_bytes();
      struct sigaction action = {};
      action.sa_sigaction = on_sigbus;
      action.sa_flags = SA_SIGINFO | SA_ONSTACK;
      sigemptyset(&action.sa_mask);
      sigaction(SIGBUS, &action, &previous);
    });
    const auto begin = reinterpret_cast<uintptr_t>(memory.data());
    for (PageBuffer::Slot& slot : slots) {
      uintptr_t free = 0;
      if (!slot.begin.compare_exchange_strong(free, begin)) continue;
      slot.lost.store(false);
      slot.end.store(begin + memory.size());
      return &slot;
    }
    return nullptr;
  }
};

PageBuffer::PageBuffer(size_t bytes) : bytes_(align_up(bytes, page_bytes())), mapped_begin_(bytes_) {
  void* const memory =
      bytes_ == 0 ? nullptr : mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<std::byte*>(memory);
  slot_ = bytes_ == 0 ? nullptr : LostPages::take_slot(span());
}

PageBuffer::~PageBuffer() {
  if (memory_ == nullptr) return;
  if (slot_ != nullptr) {  // first: the addresses may be another buffer's as soon as they are free
    slot_->end.store(0, std::memory_order_release);
    slot_->begin.store(0, std::memory_order_release);
  }
  munmap(memory_, bytes_);
}

Result<void> PageBuffer::map(std::span<std::byte> part, int fd, uint64_t offset) {
  const auto begin = static_cast<size_t>(part.data() - memory_);
  assert(begin % page_bytes() == 0 && part.size() % page_bytes() == 0 && offset % page_bytes() == 0);
  if (slot_ == nullptr) return Error::from_errno(ENOMEM);
  mapped_begin_ = std::min(mapped_begin_, begin);
  mapped_end_ = std::max(mapped_end_, begin + part.size());
  // Private: what is written here afterwards stays here.
  if (mmap(part.data(), part.size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, static_cast<off_t>(offset)) ==
      MAP_FAILED) {
    return Error::from_errno(errno);
  }
  while (madvise(part.data(), part.size(), MADV_POPULATE_READ) != 0) {
    if (errno != EINTR && errno != EAGAIN) return Error::from_errno(errno == EINVAL ? ENOTSUP : errno);
  }
  return {};
}

void PageBuffer::unmap(std::span<std::byte> part) {
  const size_t first = static_cast<size_t>(part.data() - memory_);
  const size_t begin = std::max(align_up(first, page_bytes()), mapped_begin_);
  const size_t end = std::min(align_down(first + part.size(), page_bytes()), mapped_end_);
  if (begin >= end) return;
  if (!put_own_memory(memory_ + begin, end - begin)) return;  // as good, but slower
  if (begin == mapped_begin_) mapped_begin_ = end;
  if (end == mapped_end_) mapped_end_ = begin;
  if (mapped_begin_ >= mapped_end_) {
    mapped_begin_ = bytes_;
    mapped_end_ = 0;
  }
}

bool PageBuffer::take_lost() { return slot_ != nullptr && slot_->lost.exchange(false); }

namespace {

/// The bytes whose pages the page cache has, perhaps not yet read; nothing where the kernel does not tell.
std::optional<uint64_t> count_cached(int fd, uint64_t offset, uint64_t bytes) {
#ifdef SYS_cachestat
  const struct {
    uint64_t offset, bytes;
  } range{offset, bytes};
  struct {
    uint64_t cached, dirty, writeback, evicted, recently_evicted;
  } pages{};
  if (syscall(SYS_cachestat, fd, &range, &pages, 0U) == 0) return pages.cached * page_bytes();
#else
  (void)fd, (void)offset, (void)bytes;
#endif
  return std::nullopt;
}

}  // namespace

Cached find_cached(int fd, uint64_t offset, uint64_t bytes) {
  const std::optional<uint64_t> cached = count_cached(fd, offset, bytes);
  const uint64_t missing = bytes - std::min(bytes, cached.value_or(bytes));
  if (missing > bytes / kFewMissing) return Cached::kNotAll;
  // Pages that are being read are there as well. Those in between are, as a rule, read before the last one.
  const bool ends_are_read = is_byte_cached(fd, offset) && is_byte_cached(fd, offset + bytes - 1);
  if (!cached) return ends_are_read ? Cached::kNearlyAll : Cached::kNotAll;
  return missing == 0 && ends_are_read ? Cached::kAll : Cached::kNearlyAll;
}

Error lost_pages() { return {EIO, "the file became shorter while it was read, or it cannot be read"}; }

}  // namespace coimg
