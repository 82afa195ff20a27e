// Hasher: the digests that checksums are made of, by OpenSSL and xxHash.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace coimg {

enum class DigestAlgorithm {
  kSha256,
  kBlake2b,  ///< BLAKE2b-512
  kXxh3,     ///< XXH3, 128 bits: fast, and no protection against intent
};

/// "sha256", "blake2b" and "xxh3"; nothing for other names.
std::optional<DigestAlgorithm> find_digest_algorithm(std::string_view name);
std::string_view digest_algorithm_name(DigestAlgorithm algorithm);

/// The bytes of a digest, in the order in which they are shown.
class Digest {
 public:
  [[nodiscard]] std::span<const std::byte> bytes() const { return std::span(bytes_).first(size_); }
  /// In lower-case hexadecimal.
  [[nodiscard]] std::string text() const;

 private:
  friend class Hasher;
  std::array<std::byte, 64> bytes_ = {};
  size_t size_ = 0;
};

/// One digest in the making. Any thread, one at a time.
class Hasher {
 public:
  explicit Hasher(DigestAlgorithm algorithm);
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;

  void update(std::span<const std::byte> memory);
  /// The digest of all that was given. Called once, at the end.
  Digest finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace coimg
