// Lines for the user that are not errors.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace coimg {

/// Receives complete lines, newlines included. `file` is the image they are about; empty when they name it themselves.
using WarningSink = std::function<void(std::string_view file, const std::string& lines)>;

/// Replaces the sink; an empty one restores the default, which writes the lines to stderr. Context: the main thread.
void set_warning_sink(WarningSink sink);
void emit_warning(const std::string& lines, std::string_view file = {});

}  // namespace coimg
