#include "tests/support/vanishing_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <vector>

#include "block/util/page_buffer.h"
#include "block/util/unique_fd.h"
#include "tests/support/mem_driver.h"

namespace coimg {
namespace {

/// A file without a name that holds `bytes` bytes.
UniqueFd make_file(uint64_t bytes) {
  char name[] = "/tmp/coimg-pages-XXXXXX";
  UniqueFd fd(mkstemp(name));
  unlink(name);
  const std::vector<std::byte> content = pattern(bytes);
  EXPECT_EQ(pwrite(fd.get(), content.data(), bytes, 0), static_cast<ssize_t>(bytes));
  return fd;
}

class VanishingFile final : public MemDriver {
 public:
  explicit VanishingFile(uint64_t bytes) : MemDriver(std::make_shared<MemDisk>(pattern(bytes))) {}

  Result<void> preadv(uint64_t, const IoVector& iov) coroutine_fn override {
    if (iov.page_buffer() == nullptr || iov.pieces().size() != 1) {
      ADD_FAILURE() << "a read that maps no pages";
      return {};
    }
    const iovec& piece = iov.pieces().front();
    const UniqueFd fd = make_file(piece.iov_len);
    COIMG_TRY(iov.page_buffer()->map({static_cast<std::byte*>(piece.iov_base), piece.iov_len}, fd.get(), 0));
    EXPECT_EQ(ftruncate(fd.get(), 0), 0);
    return {};
  }
};

}  // namespace

std::unique_ptr<BlockNode> make_vanishing_node(uint64_t bytes) {
  auto node = std::make_unique<BlockNode>("vanishing", OpenFlags{.writable = true});
  node->set_driver(std::make_unique<VanishingFile>(bytes));
  return node;
}

bool pages_can_be_mapped() {
  const UniqueFd fd = make_file(64 * 1024);
  PageBuffer pages(64 * 1024);
  return pages.map(pages.span(), fd.get(), 0).ok();
}

}  // namespace coimg
