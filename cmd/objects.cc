#include "cmd/objects.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>
#include <string_view>
#include <utility>

#include "block/options.h"
#include "cmd/option_declarer.h"

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

Result<std::string> take_required(Options& options, std::string_view key) {
  std::optional<std::string> value = options.take_text(key);
  if (!value.has_value()) return Error(EINVAL, fmt::format("Parameter '{}' is missing", key));
  return *std::move(value);
}

/// The properties of a secret that say what it is.
struct SecretProperties {
  std::optional<std::string> data, file, key_id, iv;
  bool is_base64 = false;
};

Result<SecretProperties> take_secret(Options& options) {
  SecretProperties taken;
  const std::string format = options.take_text("format").value_or("raw");
  if (format != "raw" && format != "base64") {
    return Error(EINVAL, fmt::format("Parameter 'format' does not accept value '{}'", format));
  }
  taken.is_base64 = format == "base64";
  taken.data = options.take_text("data");
  taken.file = options.take_text("file");
  taken.key_id = options.take_text("keyid");
  taken.iv = options.take_text("iv");
  if (!options.empty()) {
    return Error(EINVAL, fmt::format("Parameter '{}' is unexpected", options.values().begin()->first));
  }
  return taken;
}

/// Line ends and padding, which may be missing, are not looked at, nor bits that do not make up a byte.
Result<std::string> decode_base64(std::string_view text) {
  constexpr size_t kDigitsPerGroup = 4, kBytesPerGroup = 3;
  std::string digits;
  std::ranges::copy_if(text, std::back_inserter(digits), [](char c) { return c != '=' && c != '\n'; });
  const size_t byte_count = digits.size() * kBytesPerGroup / kDigitsPerGroup;
  digits.resize((digits.size() + kDigitsPerGroup - 1) / kDigitsPerGroup * kDigitsPerGroup, 'A');
  const bool has_space = digits.find_first_of(" \t\r") != std::string::npos;  // EVP_DecodeBlock strips it at the ends
  std::string bytes(digits.size() / kDigitsPerGroup * kBytesPerGroup, '\0');
  if (has_space ||
      EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                      reinterpret_cast<const unsigned char*>(digits.data()), static_cast<int>(digits.size())) < 0) {
    return Error(EINVAL, "Base64 data contains invalid characters");
  }
  bytes.resize(byte_count);
  return bytes;
}

/// Whether what is there could be decrypted with AES-256 in CBC mode. Errors: EINVAL.
Result<void> check_encrypted(const SecretProperties& secret, const std::string& stored,
                             const std::optional<std::string>& key) {
  constexpr size_t kKeyBytes = 32, kBlockBytes = 16;
  if (key && key->size() != kKeyBytes) {
    return Error(EINVAL, fmt::format("Key should be {} bytes in length", kKeyBytes));
  }
  if (!secret.iv) return Error(EINVAL, "IV is required to decrypt secret");
  const std::string iv = COIMG_TRY(decode_base64(*secret.iv));
  if (iv.size() != kBlockBytes) {
    return Error(EINVAL, fmt::format("IV should be {} bytes in length not {}", kBlockBytes, iv.size()));
  }
  const std::string bytes = secret.is_base64 ? COIMG_TRY(decode_base64(stored)) : stored;
  if (bytes.size() % kBlockBytes != 0) {
    return Error(EINVAL, fmt::format("Length {} must be a multiple of block size {}", bytes.size(), kBlockBytes));
  }
  return {};
}

std::string help_for(const std::optional<std::string>& type) {
  if (type != "secret") return "List of user creatable objects:\n  secret\n";
  return "secret options:\n"
         "  data=<string>\n"
         "  file=<string>\n"
         "  format=<QCryptoSecretFormat>\n"
         "  iv=<string>\n"
         "  keyid=<string>\n";
}

}  // namespace

void ObjectStore::declare(OptionDeclarer& options) {
  const auto take = [this, &options](const std::string& definition) -> Result<void> {
    std::optional<std::string> help = COIMG_TRY(add(definition));
    if (help.has_value()) options.answer(*std::move(help));
    return {};
  };
  options.parsed("--object", "OBJECTDEF", take, "Define an object, such as a secret");
}

Result<std::optional<std::string>> ObjectStore::add(const std::string& definition) {
  bool asks_for_help = false;
  Options options = definition.starts_with('{') ? COIMG_TRY(parse_json_options(definition))
                                                : COIMG_TRY(parse_properties(definition, "qom-type", asks_for_help));
  if (asks_for_help) return std::optional(help_for(options.take_text("qom-type")));
  const std::string type = COIMG_TRY(take_required(options, "qom-type"));
  if (type != "secret") {
    return Error(EINVAL, fmt::format("Parameter 'qom-type' does not accept value '{}'", type));
  }
  const std::string id = COIMG_TRY(take_required(options, "id"));
  const SecretProperties secret = COIMG_TRY(take_secret(options));
  if (!is_identifier(id)) {
    return Error(EINVAL, "Parameter 'id' expects an identifier")
        .with_hint("Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.\n");
  }
  if (secret.data.has_value() == secret.file.has_value()) {
    return Error(EINVAL, secret.data.has_value() ? "'file' and 'data' are mutually exclusive"
                                                 : "Either 'file' or 'data' must be provided");
  }
  const std::string stored = secret.data.has_value() ? *secret.data : COIMG_TRY(read_secret_file(*secret.file));
  std::optional<std::string> plain;
  if (secret.key_id.has_value()) {
    if (*secret.key_id == id) return Error(EINVAL, fmt::format("Secret with id '{}' has no data", id));
    const auto key = secrets_.find(*secret.key_id);
    if (key == secrets_.end()) return Error(EINVAL, fmt::format("No secret with id '{}'", *secret.key_id));
    COIMG_TRY(check_encrypted(secret, stored, key->second));
  } else {
    plain = secret.is_base64 ? COIMG_TRY(decode_base64(stored)) : stored;
  }
  if (!secrets_.emplace(id, std::move(plain)).second) {
    return Error(EINVAL, fmt::format("attempt to add duplicate property '{}' to object (type 'container')", id));
  }
  return std::optional<std::string>();
}

}  // namespace coimg
