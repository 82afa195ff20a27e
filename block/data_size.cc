#include "block/data_size.h"

#include <algorithm>

#include "block/util/math.h"

namespace coimg {

Result<uint64_t> co_data_bytes(BlockNode& source, uint64_t unit) {
  const uint64_t length = source.length();
  uint64_t bytes = 0;
  for (uint64_t offset = 0; offset < length;) {
    const BlockStatus status = COIMG_TRY(source.co_chain_status(offset, length - offset)).status;
    const uint64_t start = align_down(offset, unit);
    offset += status.bytes;
    if (!status.allocated || !status.data || status.zero) continue;
    offset = align_up(offset, unit);  // the rest of the unit makes no difference any more
    bytes += offset - start;
  }
  return bytes;
}

}  // namespace coimg
