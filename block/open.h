// Opening and creating images: names, options, probing, and the tree of nodes that comes out.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "block/driver.h"
#include "block/node.h"
#include "block/options.h"
#include "block/util/result.h"

namespace coimg {

/// What an image operand means.
struct ImageName {
  std::string text;               ///< as given
  bool is_option_string = false;  ///< --image-opts
};

struct OpenRequest {
  ImageName name;
  std::string format;  ///< empty: probe
  OpenFlags flags;
  Options options = {};  ///< of the top layer, besides those of the name
};

/// Opens an image and everything below it.
///
/// Relative backing names are resolved against the directory of the overlay's name. A chain that reaches a file already
/// in it, or is longer than 200, is refused (ELOOP). Warnings (raw probed for writing) go through `warn`. Context:
/// coroutine. Errors: the message names the failing file and does not repeat "Could not open 'OPERAND'", which the
/// command adds. Nothing stays open.
Result<std::unique_ptr<BlockNode>> open_image(const DriverRegistry& registry, const OpenRequest& request) coroutine_fn;

/// A name split as in cli.md 2.4: "file:x" gives {"file", "x"}; a plain path gives {"", path}.
struct ProtocolName {
  std::string protocol, rest;
};
ProtocolName split_protocol(std::string_view name);

/// The name of a backing file, seen from the directory of the overlay `overlay_filename` (cli.md 2.9).
std::string resolve_backing_name(std::string_view overlay_filename, std::string_view backing);

/// The host file that a name leads to, if there is one; with `new_files`, once those have their names.
std::optional<BlockNode::FileIdentity> find_host_file(const std::string& name, const NewFiles* new_files = nullptr);

/// Creates the image `filename` of format `type`: the file (protocol) first, then the format in it, under the locks of
/// specs/qcow2.md 24.5. `options` are complete, with "size". The image's files are in `files` then, to be published or
/// discarded by the caller, also when the call fails.
Result<void> create_image(const DriverRegistry& registry, const DriverType& type, const std::string& filename,
                          const CreateOptions& options, NewFiles& files) coroutine_fn;

/// The same in one step: on error there is no new file, and one that is there is as it was, unless it had to be written
/// in place (see NewFiles).
Result<void> create_image(const DriverRegistry& registry, const DriverType& type, const std::string& filename,
                          const CreateOptions& options) coroutine_fn;

}  // namespace coimg
