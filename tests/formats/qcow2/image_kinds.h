// Kinds of images, chosen so that each pair of properties that can go together is met.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <set>
#include <tuple>
#include <vector>

#include "tests/formats/qcow2/image_fixture.h"

namespace coimg::qcow2 {

/// The properties of a kind as indices into their values.
class KindChoice {
 public:
  static constexpr std::array<uint64_t, 5> kClusterSizes{512, 4096, 16384, 65536, 2097152};
  static constexpr std::array<size_t, 8> kValues{kClusterSizes.size(), 7, 2, 2, 2, 3, 2, 2};
  using Pair = std::tuple<size_t, size_t, size_t, size_t>;  ///< property, value, property, value

  /// All of them, one after the other.
  bool next() {
    for (size_t property = 0; property < kValues.size(); ++property) {
      if (++chosen_[property] < kValues[property]) return true;
      chosen_[property] = 0;
    }
    return false;
  }

  [[nodiscard]] ImageKind kind() const {
    return {.cluster_size = kClusterSizes[chosen_[0]],
            .version2 = chosen_[2] == 1,
            .refcount_bits = 1u << chosen_[1],
            .backing = chosen_[3] == 1,
            .extended_l2 = chosen_[4] == 1,
            .data_file = static_cast<DataFile>(chosen_[5]),
            .lazy_refcounts = chosen_[6] == 1,
            .zstd = chosen_[7] == 1};
  }

  [[nodiscard]] bool is_possible() const {
    const ImageKind kind = this->kind();
    if (kind.version2 && (kind.refcount_bits != 16 || kind.extended_l2 || kind.data_file != DataFile::kNone ||
                          kind.lazy_refcounts || kind.zstd)) {
      return false;
    }
    if (kind.extended_l2 && kind.cluster_size < 16384) return false;
    if (kind.zstd && kind.data_file != DataFile::kNone) return false;  // nothing would be compressed
    return !(kind.data_file == DataFile::kRaw && kind.backing);
  }

  void add_pairs_to(std::set<Pair>& pairs) const {
    for (size_t a = 0; a < chosen_.size(); ++a) {
      for (size_t b = a + 1; b < chosen_.size(); ++b) pairs.emplace(a, chosen_[a], b, chosen_[b]);
    }
  }
  [[nodiscard]] size_t count_pairs_in(const std::set<Pair>& pairs) const {
    size_t found = 0;
    for (size_t a = 0; a < chosen_.size(); ++a) {
      for (size_t b = a + 1; b < chosen_.size(); ++b) found += pairs.contains({a, chosen_[a], b, chosen_[b]});
    }
    return found;
  }
  void take_pairs_from(std::set<Pair>& pairs) const {
    std::set<Pair> own;
    add_pairs_to(own);
    for (const Pair& pair : own) pairs.erase(pair);
  }

 private:
  std::array<size_t, kValues.size()> chosen_{};
};

/// Greedy: each is the one that has the most pairs which none before it has.
inline std::vector<ImageKind> image_kinds_in_pairs() {
  std::vector<KindChoice> possible;
  std::set<KindChoice::Pair> missing;
  KindChoice choice;
  do {
    if (!choice.is_possible()) continue;
    possible.push_back(choice);
    choice.add_pairs_to(missing);
  } while (choice.next());

  std::vector<ImageKind> kinds;
  while (!missing.empty()) {
    const KindChoice& best = *std::ranges::max_element(
        possible, {}, [&](const KindChoice& candidate) { return candidate.count_pairs_in(missing); });
    best.take_pairs_from(missing);
    kinds.push_back(best.kind());
  }
  return kinds;
}

}  // namespace coimg::qcow2
