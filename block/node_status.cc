// Where data lies: in one layer, and through the backing chain.
#include <algorithm>
#include <cassert>

#include "block/node.h"
#include "block/util/math.h"

namespace coimg {

Result<BlockStatus> BlockNode::co_block_status(uint64_t offset, uint64_t bytes, bool want_zero) {
  uint64_t end = length();
  if (is_protocol_) {
    end = exact_length();
    if (offset >= end) {  // as it reads: endless zeros
      return BlockStatus{.bytes = bytes, .allocated = true, .zero = true, .host_offset = offset, .file = this};
    }
  }
  if (offset > end) return Error(EINVAL, "the offset lies beyond the end of the image");
  bytes = std::min(bytes, end - offset);
  if (bytes == 0) return BlockStatus{};

  auto status = COIMG_TRY(locate(driver_->block_status(offset, bytes, want_zero), offset));
  assert(status.bytes > 0 && status.bytes <= bytes);
  if (status.host_offset && !status.file) status.file = is_protocol_ ? this : file_.get();
  if (!want_zero || !status.ask_file || !status.data || status.zero || !status.host_offset) return status;

  // The bytes stored for the range may be a hole of the file, or lie beyond its end.
  if (*status.host_offset >= status.file->length()) {
    status.zero = true;
    return status;
  }
  auto* file = const_cast<BlockNode*>(status.file);  // const for those who read the answer; no node is made const
  const auto stored = COIMG_TRY(file->co_block_status(*status.host_offset, status.bytes, want_zero));
  status.zero = stored.zero;
  status.bytes = stored.bytes;
  return status;
}

Result<ChainStatus> BlockNode::co_chain_status(uint64_t offset, uint64_t bytes, const BlockNode* base, bool want_zero) {
  assert(base != this);
  BlockNode* node = this;
  for (unsigned depth = 0;; ++depth) {
    ChainStatus result{
        .status = COIMG_TRY(node->co_block_status(offset, bytes, want_zero)), .layer = node, .depth = depth};
    if (result.status.allocated || result.status.bytes == 0) return result;

    BlockNode* below = node->backing();
    if (!below || offset >= below->length()) {
      result.status.zero = true;
      return result;
    }
    // Behind the end of the backing file the answer is another one.
    bytes = result.status.bytes = std::min(result.status.bytes, below->length() - offset);
    if (below == base) return result;
    node = below;
  }
}

}  // namespace coimg
