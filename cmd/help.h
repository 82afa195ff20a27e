// The program's help text.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cmd/command.h"

namespace coimg {

/// The full help. Callers look for features in it: a line a command that starts with two blanks and the command's name,
/// options in the form "[-x arg]", and the line "Supported formats: ...".
std::string program_help(const CommandContext& context, const std::vector<std::unique_ptr<Command>>& commands);

}  // namespace coimg
