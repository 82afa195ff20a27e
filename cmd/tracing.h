// Tracing: spdlog, to stderr, off unless asked for.
#pragma once

#include <string_view>

#include "cmd/console.h"

namespace coimg {

/// Sets the logger up. The environment variable COIMG_LOG names the level that is shown; without it only warnings are.
void init_tracing();

/// From now on each line is a JSON object with "type": "trace", "severity", "time-us" (since 1970) and
/// "message".
void trace_as_json();

/// What -T asks for: "[[enable=]PATTERN][,...]", where PATTERN is '*' or a level's name. Others only cause a warning.
void enable_tracing(std::string_view spec, Console& console);

}  // namespace coimg
