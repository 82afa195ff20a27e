// HostFile: an open file of this machine.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "block/driver.h"
#include "block/protocol/file_locks.h"
#include "block/protocol/host_file_holes.h"
#include "block/util/unique_fd.h"
#include "coroutine/co_rwlock.h"
#include "coroutine/worker_pool.h"

namespace coimg {

enum class HostFileKind { kRegular, kBlockDevice, kCharacterDevice };

/// What opening found out; constant but for the length.
struct HostFileSetup {
  UniqueFd fd;
  HostFileKind kind = HostFileKind::kRegular;
  uint64_t length = 0;
  uint32_t request_alignment = 1;
  uint32_t memory_alignment = 1;
  uint64_t device = 0, inode = 0;
};

class HostFile final : public BlockDriver {
 public:
  /// `node` is what the file belongs to. `lock` is false where other processes are not to be kept off.
  HostFile(const DriverType& type, BlockNode* node, std::string filename, const OpenFlags& flags, HostFileSetup setup,
           bool lock);

  const DriverType& type() const override { return type_; }
  uint64_t length() const override { return length_; }
  BlockLimits limits() const override;

  Result<void> close() coroutine_fn override;
  Result<void> preadv(uint64_t offset, const IoVector& iov) coroutine_fn override;
  /// Beyond the end the file grows.
  Result<void> pwritev(uint64_t offset, const IoVector& iov, const WriteOptions& options) coroutine_fn override;
  Result<void> pwrite_zeroes(uint64_t offset, uint64_t bytes, const ZeroOptions& options) coroutine_fn override;
  Result<void> reserve(std::span<const ByteRange> ranges) coroutine_fn override;
  Result<void> pdiscard(uint64_t offset, uint64_t bytes) coroutine_fn override;
  /// Once it has failed it fails for good: the kernel reports lost pages once and then forgets them.
  Result<void> flush() coroutine_fn override;
  Result<BlockStatus> block_status(uint64_t offset, uint64_t bytes, bool want_zero) coroutine_fn override;
  Result<void> truncate(uint64_t new_length, Preallocation preallocation) coroutine_fn override;
  Result<std::optional<uint64_t>> allocated_file_size() coroutine_fn override;
  Result<void> set_permissions(const Permissions& permissions) coroutine_fn override;
  bool created_reads_as_zeros() const override { return is_regular(); }

 private:
  bool is_regular() const { return kind_ == HostFileKind::kRegular; }
  Result<void> read_pages(uint64_t offset, const IoVector& iov) coroutine_fn;
  bool co_map(PageBuffer& pages, std::span<std::byte> part, uint64_t offset) coroutine_fn;
  Result<void> read_copy(uint64_t offset, const IoVector& iov) coroutine_fn;
  void note_written_up_to(uint64_t end);
  Result<void> write_all(uint64_t offset, const IoVector& iov) coroutine_fn;

  /// False: not done.
  Result<bool> punch(uint64_t offset, uint64_t bytes) coroutine_fn CO_EXCLUDES(growth_lock_);
  Result<void> zero_range(uint64_t offset, uint64_t bytes, bool may_unmap) coroutine_fn;
  /// One fallocate call; `works` is cleared when the file system turns out not to have it. False: not done.
  Result<bool> try_fallocate(int mode, uint64_t offset, uint64_t bytes, bool& works) coroutine_fn;
  Result<void> extend_sparse(uint64_t new_length) coroutine_fn CO_EXCLUDES(growth_lock_);
  Result<void> set_file_length(uint64_t new_length) coroutine_fn;
  Result<void> preallocate(uint64_t begin, uint64_t end, Preallocation preallocation) coroutine_fn;
  Result<void> write_zero_bytes(uint64_t begin, uint64_t end) coroutine_fn;

  const DriverType& type_;
  BlockNode* const node_;
  const std::string filename_;
  const HostFileKind kind_;
  const uint32_t request_alignment_, memory_alignment_;
  const bool writable_, direct_, discard_, lock_;

  bool may_map_;  ///< large reads may map the file's pages
  unsigned maps_ = 0;
  uint64_t bytes_to_copy_ = 0;  ///< before mapping is tried again
  UniqueFd fd_;
  WorkerStrand writes_;  ///< into the page cache, where the kernel lets one writer at a time into a file
  uint64_t length_;
  FileLocks locks_;
  HoleMap holes_;
  int flush_error_ = 0;  ///< errno of the first flush that failed

  /// Requests that make the file grow hold it shared. ftruncate(), which would cut off what such a request has written
  /// but not yet counted in length_, holds it exclusively.
  CoRwlock growth_lock_;

  // What the file system has shown not to have.
  bool can_punch_ = true, can_zero_range_ = true, can_allocate_ = true;
};

}  // namespace coimg
