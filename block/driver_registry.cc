// DriverRegistry: finding drivers by name and by the look of a file.
#include <fmt/format.h>

#include <algorithm>

#include "block/driver.h"

namespace coimg {
namespace {

using namespace std::string_view_literals;

/// A format that others read and we do not. Taken for raw, an image of one would be converted into garbage, so it is
/// refused by name.
struct ForeignFormat {
  std::string_view name;
  size_t offset;
  std::string_view magic;
};

constexpr ForeignFormat kForeignFormats[] = {
    {"qcow", 0, "QFI\xfb\0\0\0\1"sv},
    {"vmdk", 0, "KDMV"sv},
    {"vmdk", 0, "COWD"sv},
    {"vmdk", 0, "# Disk DescriptorFile"sv},
    {"vdi", 64, "\x7f\x10\xda\xbe"sv},
    {"vhdx", 0, "vhdxfile"sv},
    {"vpc", 0, "conectix"sv},
    {"luks", 0, "LUKS\xba\xbe"sv},
    {"qed", 0, "QED\0"sv},
    {"parallels", 0, "WithoutFreeSpace"sv},
    {"parallels", 0, "WithouFreSpacExt"sv},
    {"bochs", 0, "Bochs Virtual HD Image"sv},
    {"cloop", 0, "#!/bin/sh\n#V2.0 Format\nmodprobe cloop "sv},
};

bool matches(const ForeignFormat& format, std::span<const std::byte> head) {
  if (head.size() < format.offset + format.magic.size()) return false;
  const auto start = head.begin() + static_cast<ptrdiff_t>(format.offset);
  return std::equal(format.magic.begin(), format.magic.end(), start,
                    [](char expected, std::byte found) { return static_cast<std::byte>(expected) == found; });
}

}  // namespace

void DriverRegistry::add(std::unique_ptr<DriverType> type) { types_.push_back(std::move(type)); }

const DriverType* DriverRegistry::find(std::string_view name) const {
  const auto found = std::ranges::find_if(types_, [name](const auto& type) { return type->name() == name; });
  return found == types_.end() ? nullptr : found->get();
}

Result<const DriverType*> DriverRegistry::probe(std::span<const std::byte> head) const {
  const DriverType* best = nullptr;
  int best_score = 0;
  for (const auto& type : types_) {
    if (type->kind() != DriverKind::kFormat) continue;
    if (const int score = type->probe(head); score > best_score) {
      best = type.get();
      best_score = score;
    }
  }
  if (best) return best;
  for (const ForeignFormat& format : kForeignFormats) {
    if (matches(format, head)) return Error(ENOTSUP, fmt::format("Unknown driver '{}'", format.name));
  }
  if (const DriverType* raw = find("raw")) return raw;
  return Error(ENOTSUP, "the image's format is not known");
}

}  // namespace coimg
