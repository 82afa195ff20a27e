// VanishingFile: a file that is cut off each time somebody has its pages, before they are looked at.
#pragma once

#include <memory>

#include "block/node.h"

namespace coimg {

/// A protocol node of `bytes` bytes. Reads that may map pages get such as are lost by then; others fail the test.
std::unique_ptr<BlockNode> make_vanishing_node(uint64_t bytes);

/// Whether files in /tmp can be mapped in place of reads; on some file systems they are not.
bool pages_can_be_mapped();

}  // namespace coimg
