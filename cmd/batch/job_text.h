// The jobs of a batch as a file has them, before anybody looks at what they say.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "block/util/result.h"

namespace coimg {

/// One job.
struct JobText {
  size_t line = 0;  ///< where it starts, counted from 1
  nlohmann::json value;
};

/// A JSON value a line; blank lines are left out. Errors: EINVAL "line N: ...".
Result<std::vector<JobText>> read_json_lines(std::string_view text);

/// One YAML document that is a list; a JSON array is one too. Scalars become strings, whatever they look like. Anchors
/// and aliases are known. Errors: EINVAL "line N: ..." for what is no YAML, more than a list, or larger or deeper than
/// a list of jobs can be.
Result<std::vector<JobText>> read_yaml(std::string_view text);

}  // namespace coimg
