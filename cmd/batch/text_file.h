// Files that are read as a whole.
#pragma once

#include <string>

#include "block/util/result.h"

namespace coimg {

/// All of a file of up to 64 MiB. Errors: EFBIG, and the host's.
Result<std::string> read_text_file(const std::string& path);

}  // namespace coimg
