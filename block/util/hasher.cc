#include "block/util/hasher.h"

#include <openssl/evp.h>
#include <xxhash.h>

#include "coroutine/fatal.h"

namespace coimg {

namespace {

struct NamedAlgorithm {
  std::string_view name;
  DigestAlgorithm algorithm;
};
constexpr NamedAlgorithm kAlgorithms[] = {
    {"sha256", DigestAlgorithm::kSha256}, {"blake2b", DigestAlgorithm::kBlake2b}, {"xxh3", DigestAlgorithm::kXxh3}};

/// These calls fail only without memory, or where the library's own configuration forbids an algorithm.
void need(bool worked) {
  if (!worked) fatal("libcrypto does not make digests");
}

}  // namespace

std::optional<DigestAlgorithm> find_digest_algorithm(std::string_view name) {
  for (const NamedAlgorithm& each : kAlgorithms) {
    if (each.name == name) return each.algorithm;
  }
  return std::nullopt;
}

std::string_view digest_algorithm_name(DigestAlgorithm algorithm) {
  for (const NamedAlgorithm& each : kAlgorithms) {
    if (each.algorithm == algorithm) return each.name;
  }
  return {};
}

std::string Digest::text() const {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::byte byte : bytes()) {
    text += kDigits[std::to_integer<unsigned>(byte) >> 4];
    text += kDigits[std::to_integer<unsigned>(byte) & 15];
  }
  return text;
}

/// One of the two libraries' states.
struct Hasher::State {
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> crypto{nullptr, &EVP_MD_CTX_free};
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> xxh3{nullptr, &XXH3_freeState};
};

Hasher::Hasher(DigestAlgorithm algorithm) : state_(std::make_unique<State>()) {
  if (algorithm == DigestAlgorithm::kXxh3) {
    state_->xxh3.reset(XXH3_createState());
    need(state_->xxh3 != nullptr);
    XXH3_128bits_reset(state_->xxh3.get());
    return;
  }
  state_->crypto.reset(EVP_MD_CTX_new());
  need(state_->crypto != nullptr);
  const EVP_MD* const type = algorithm == DigestAlgorithm::kSha256 ? EVP_sha256() : EVP_blake2b512();
  need(EVP_DigestInit_ex(state_->crypto.get(), type, nullptr) == 1);
}

Hasher::~Hasher() = default;

void Hasher::update(std::span<const std::byte> memory) {
  if (state_->xxh3) {
    XXH3_128bits_update(state_->xxh3.get(), memory.data(), memory.size());
  } else {
    need(EVP_DigestUpdate(state_->crypto.get(), memory.data(), memory.size()) == 1);
  }
}

Digest Hasher::finish() {
  Digest digest;
  auto* const to = reinterpret_cast<unsigned char*>(digest.bytes_.data());
  if (state_->xxh3) {
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state_->xxh3.get()));
    static_assert(sizeof(canonical.digest) == 16);
    std::copy(std::begin(canonical.digest), std::end(canonical.digest), to);
    digest.size_ = sizeof(canonical.digest);
  } else {
    unsigned size = 0;
    need(EVP_DigestFinal_ex(state_->crypto.get(), to, &size) == 1);
    digest.size_ = size;
  }
  return digest;
}

}  // namespace coimg
