// What drivers do not implement, in words.
#include "block/driver.h"

#include <fmt/format.h>

namespace coimg {
namespace {

Error unsupported(const DriverType& type, std::string_view what) {
  const auto* kind = type.kind() == DriverKind::kFormat ? "Format" : "Protocol";
  return {ENOTSUP, fmt::format("{} driver '{}' does not support {}", kind, type.name(), what)};
}

}  // namespace

std::optional<Preallocation> find_preallocation(std::string_view name) {
  if (name == "off") return Preallocation::kOff;
  if (name == "metadata") return Preallocation::kMetadata;
  if (name == "falloc") return Preallocation::kFalloc;
  if (name == "full") return Preallocation::kFull;
  return std::nullopt;
}

Result<void> BlockDriver::pwritev(uint64_t, const IoVector&, const WriteOptions&) {
  return unsupported(type(), "writing");
}

Result<void> BlockDriver::pwrite_zeroes(uint64_t, uint64_t, const ZeroOptions&) {
  return unsupported(type(), "writing zeroes efficiently");
}

Result<void> BlockDriver::pdiscard(uint64_t, uint64_t) { return unsupported(type(), "discarding"); }

Result<void> BlockDriver::pwrite_compressed(uint64_t, const IoVector&, const WriteOptions&) {
  return unsupported(type(), "compression");
}

Result<BlockStatus> BlockDriver::block_status(uint64_t, uint64_t bytes, bool) {
  return BlockStatus{.bytes = bytes, .allocated = true, .data = true};
}

Result<void> BlockDriver::truncate(uint64_t, Preallocation) { return unsupported(type(), "changing the length"); }

namespace {

Error no_snapshots() { return {ENOTSUP, "Block driver does not support snapshots"}; }

}  // namespace

Result<void> BlockDriver::create_snapshot(const std::string&) { return no_snapshots(); }
Result<void> BlockDriver::apply_snapshot(const SnapshotSelector&) { return no_snapshots(); }
Result<void> BlockDriver::delete_snapshot(const SnapshotSelector&) { return no_snapshots(); }

Result<void> BlockDriver::show_snapshot(const SnapshotSelector&) {
  return Error(ENOTSUP, "Block format '" + std::string(type().name()) +
                            "' used by device '' does not support temporarily loading internal snapshots");
}

namespace {

Error no_such_bitmap(const std::string& name) { return {ENOENT, fmt::format("Dirty bitmap '{}' not found", name)}; }

}  // namespace

Result<void> BlockDriver::add_bitmap(const BitmapInfo&) {
  return Error(
      ENOTSUP,
      fmt::format("Can't store persistent bitmaps to an image of format '{}': Operation not supported", type().name()));
}
Result<void> BlockDriver::remove_bitmap(const std::string& name) { return no_such_bitmap(name); }
Result<void> BlockDriver::clear_bitmap(const std::string& name) { return no_such_bitmap(name); }
Result<void> BlockDriver::set_bitmap_recording(const std::string& name, bool) { return no_such_bitmap(name); }
Result<void> BlockDriver::merge_bitmap(const std::string& name, BlockDriver&, const std::string&) {
  return no_such_bitmap(name);
}
Result<void> BlockDriver::visit_bitmap(const std::string& name, const DirtyVisitor&) { return no_such_bitmap(name); }

Result<void> BlockDriver::preadv_vm_state(uint64_t, const IoVector&) { return Error::from_errno(ENOTSUP); }
Result<void> BlockDriver::pwritev_vm_state(uint64_t, const IoVector&) { return Error::from_errno(ENOTSUP); }

Result<CheckResult> BlockDriver::check(const CheckOptions&) {
  return Error(ENOTSUP, "This image format does not support checks");
}

Result<void> BlockDriver::change_backing_file(const std::string&, const std::string&) {
  return Error::from_errno(ENOTSUP);
}

Result<void> BlockDriver::make_empty() { return unsupported(type(), "dropping its content"); }

Result<void> BlockDriver::amend(const CreateOptions&, const ProgressCallback&) {
  return unsupported(type(), "option amendment");
}

Result<std::optional<uint64_t>> BlockDriver::allocated_file_size() { return std::optional<uint64_t>(); }

Permissions DriverType::file_permissions(const OpenFlags& flags) const {
  if (flags.force_share) return {.used = 0, .shared = kPermAll};
  // A format's metadata must not change under it, nor can two agree on where the file ends.
  Permissions permissions{.used = 0, .shared = kPermAll & ~(kPermWrite | kPermResize)};
  if (!flags.no_io) permissions.used |= kPermConsistentRead;
  if (flags.writable) permissions.used |= kPermConsistentRead | kPermWrite | kPermResize;
  return permissions;
}

Result<void> DriverType::create(BlockNode*, const std::string&, const CreateOptions&) const {
  return unsupported(*this, "image creation");
}

Result<MeasureResult> DriverType::measure(const CreateOptions&, const MeasureRequest&) const {
  return Error(ENOTSUP, fmt::format("Block driver '{}' does not support size measurement", name()));
}

}  // namespace coimg
