#include "cmd/objects.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>
#include <string_view>

#include "block/options.h"

namespace coimg {

namespace {

constexpr size_t kMaxSecretBytes = size_t{1} << 20;  ///< far above any passphrase; /dev/zero must not fill the memory

Result<std::string> read_secret_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    const int errnum = errno;
    return Error(errnum,
                 fmt::format("Unable to read {0}: Failed to open file “{0}”: {1}", path, std::strerror(errnum)));
  }
  std::string bytes(kMaxSecretBytes + 1, '\0');
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  bytes.resize(static_cast<size_t>(file.gcount()));
  if (bytes.size() > kMaxSecretBytes) return Error(EFBIG, fmt::format("Unable to read {}: it is too long", path));
  return bytes;
}

/// The type is a bare first word, or the property qom-type.
Result<Options> parse_definition(const std::string& definition) {
  if (definition.starts_with('{')) return parse_json_options(definition);
  const size_t end = definition.find(',');
  const std::string first = definition.substr(0, end);
  if (first.empty() || first.find('=') != std::string::npos) return parse_key_value_options(definition);
  Options options;
  if (end != std::string::npos) options = COIMG_TRY(parse_key_value_options(definition.substr(end + 1)));
  options.set("qom-type", first);
  return options;
}

Result<std::string> take_required(Options& options, std::string_view key) {
  std::optional<std::string> value = options.take_text(key);
  if (!value.has_value()) return Error(EINVAL, fmt::format("Parameter '{}' is missing", key));
  return *std::move(value);
}

}  // namespace

Result<void> ObjectStore::add(const std::string& definition) {
  Options options = COIMG_TRY(parse_definition(definition));
  const std::string type = COIMG_TRY(take_required(options, "qom-type"));
  if (type != "secret") {
    return Error(EINVAL, fmt::format("Parameter 'qom-type' does not accept value '{}'", type));
  }
  const std::string id = COIMG_TRY(take_required(options, "id"));
  const std::optional<std::string> data = options.take_text("data");
  const std::optional<std::string> file = options.take_text("file");
  const std::string format = options.take_text("format").value_or("raw");
  if (!options.empty()) {
    return Error(EINVAL, fmt::format("Parameter '{}' is unexpected", options.values().begin()->first));
  }
  if (format != "raw") return Error(ENOTSUP, fmt::format("secrets of format '{}' are not supported", format));
  if (data.has_value() == file.has_value()) {
    return Error(EINVAL, data.has_value() ? "'file' and 'data' are mutually exclusive"
                                          : "Either 'file' or 'data' must be provided");
  }
  std::string secret = data.has_value() ? *data : COIMG_TRY(read_secret_file(*file));
  if (!secrets_.emplace(id, std::move(secret)).second) {
    return Error(EINVAL, fmt::format("attempt to add duplicate property '{}' to object (type 'container')", id));
  }
  return {};
}

}  // namespace coimg
