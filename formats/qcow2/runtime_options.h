// What the user may ask of an open image beside what it says itself: --image-opts, json:{...}.
//
// Format: qcow2, sections "Caches and runtime options", "Passing discards to the host file".
#pragma once

#include <cstdint>
#include <optional>

#include "block/options.h"
#include "block/util/result.h"
#include "formats/qcow2/header.h"

namespace coimg::qcow2 {

/// Metadata that the overlap guard knows, a bit each.
enum OverlapStructure : uint32_t {
  kOverlapHeader = 1u << 0,
  kOverlapActiveL1 = 1u << 1,
  kOverlapActiveL2 = 1u << 2,
  kOverlapRefcountTable = 1u << 3,
  kOverlapRefcountBlock = 1u << 4,
  kOverlapSnapshotTable = 1u << 5,
  kOverlapInactiveL1 = 1u << 6,
  kOverlapInactiveL2 = 1u << 7,
  kOverlapBitmapDirectory = 1u << 8,
  kOverlapEncryption = 1u << 9,  ///< no option has it
};

/// The levels: what the header refers to; what is in memory anyway; everything.
inline constexpr uint32_t kOverlapConstant = kOverlapHeader | kOverlapActiveL1 | kOverlapRefcountTable |
                                             kOverlapSnapshotTable | kOverlapBitmapDirectory | kOverlapEncryption;
inline constexpr uint32_t kOverlapCached =
    kOverlapConstant | kOverlapActiveL2 | kOverlapRefcountBlock | kOverlapInactiveL1;
inline constexpr uint32_t kOverlapAll = kOverlapCached | kOverlapInactiveL2;

struct RuntimeOptions {
  std::optional<bool> lazy_refcounts = {};   ///< without a wish the header decides
  uint32_t overlap_checks = kOverlapCached;  ///< OverlapStructure bits
  // Whether freed space is given back to the host.
  bool discard_on_request = true;  ///< what the guest discards, when the image was opened for that
  bool discard_snapshots = true;   ///< what only a snapshot referred to
  bool discard_other = false;      ///< old tables
};

/// Takes this format's options; those that tune other programs' caches have no influence on what is read or written.
/// Errors: EINVAL with qemu-img's words.
Result<RuntimeOptions> take_runtime_options(Options& options, const Header& header);

}  // namespace coimg::qcow2
