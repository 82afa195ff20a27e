// Images that commands create: which drivers make them, and with which options.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "block/node.h"
#include "block/options.h"
#include "cmd/command.h"
#include "cmd/option_list.h"

namespace coimg {

/// The drivers that create an image: the format, and the protocol that its file name asks for.
struct TargetType {
  const DriverType* format = nullptr;
  const DriverType* protocol = nullptr;
};

/// Errors: "Unknown file format 'X'", "Unknown protocol 'X'".
Result<TargetType> find_target_type(const DriverRegistry& registry, const std::string& format,
                                    const std::string& filename);

/// The options of the format, then those of the protocol that the format does not have itself.
CreateOptions target_create_options(const TargetType& type);

/// Checks what the formats leave to those who know all drivers. Errors: a backing format that is not known, or one
/// without a backing file.
Result<void> check_backing_format(const DriverRegistry& registry, const CreateOptions& options);

/// Prints what "-o help" asks for: with a file name the options of its protocol too. Returns the exit code.
Result<int> print_create_option_help(const CommandContext& context, const std::string& format,
                                     const std::optional<std::string>& filename);

/// Whether the cluster size of new images can be chosen. Without clusters an image may have any size: it is the host
/// that refuses, and says why.
bool has_clusters(const TargetType& type);

/// Puts the words that a user needs on an image that is too large for its format; leaves other errors alone.
Error explain_create_error(Error error, const TargetType& type);

}  // namespace coimg
