// A command as one string, split into words like a shell does.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "block/util/result.h"

namespace coimg {

/// Blanks separate words; '...', "..." and \ quote as in a shell. Errors: EINVAL for quotes that do not end, and for
/// what only a shell could do (pipes, redirections, variables), unless it is quoted.
Result<std::vector<std::string>> split_shell_words(std::string_view text);

}  // namespace coimg
