// Opening one layer: a format's node with its file, without its backing file. For block/open's own files.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "block/image_name.h"
#include "block/node.h"
#include "block/open.h"

namespace coimg {

/// Which protocol a name leads to, and what its driver is to be given.
struct ProtocolTarget {
  const DriverType* type;
  std::string filename;
};

/// Errors: ENOENT "Unknown protocol 'x'".
Result<ProtocolTarget> find_protocol(const DriverRegistry& registry, const std::string& name);

/// What leads to a layer: a name, or options that say what and where it is.
struct LayerRequest {
  std::optional<std::string> name;
  Options options;
  std::string format;  ///< overrides the option `driver`; empty: probe unless that is given
  OpenFlags flags;
};

struct OpenedLayer {
  std::unique_ptr<BlockNode> node;
  NodeDescription description;
  Options backing_options;  ///< `backing` as "" and `backing.*`: what the user wants below, whatever the header says
};

/// What the layers of one chain have in common while it is being opened.
struct OpenContext {
  const DriverRegistry& registry;
  std::vector<BlockNode::FileIdentity> files = {};       ///< of the layers above
  std::vector<BlockNode::FileIdentity> data_files = {};  ///< that hold the data of the layers above
  unsigned nesting = 0;                                  ///< formats whose file is itself in a format
  std::string_view role = "Backing file";                ///< of the next layer, for messages
};

/// A name out of an image's header, of a file that is its `role`. Only host files are opened for it: an image must not
/// make us connect to servers or follow options that its author wrote. `option`: what the user can say instead.
Result<std::string> stored_file_path(const OpenContext& context, const BlockNode& image, std::string_view role,
                                     const std::string& stored, std::string_view option);

/// The file of a name or of options `file.*`, with no locks yet. Nothing stays open on error.
Result<OpenedLayer> open_protocol_node(OpenContext& context, const ProtocolTarget& target, Options options,
                                       const OpenFlags& flags) coroutine_fn;

/// Opens a layer under its format's locks. Adds its file to context.files.
Result<OpenedLayer> open_layer(OpenContext& context, LayerRequest request) coroutine_fn;

/// Closes a node that did not come to be, for the sake of `error`, which is returned.
Error close_after_error(BlockNode& node, Error error) coroutine_fn;

/// Opens a layer and the backing chain below it.
Result<OpenedLayer> open_chain(OpenContext& context, LayerRequest request) coroutine_fn;

}  // namespace coimg
