// What info tells about a qcow2 image. The keys are in the order in which qemu-img prints them.
//
// Format: qcow2, section "info output".
#include "formats/qcow2/qcow2.h"

namespace coimg::qcow2 {

namespace {

std::vector<InfoTree> describe_bitmaps(const std::vector<BitmapInfo>& bitmaps) {
  std::vector<InfoTree> list;
  for (const BitmapInfo& bitmap : bitmaps) {
    std::vector<std::string> flags;
    if (bitmap.inconsistent) flags.emplace_back("in-use");
    if (bitmap.recording) flags.emplace_back("auto");
    list.push_back({{{"flags", std::move(flags)},
                     {"name", bitmap.name},
                     {"granularity", static_cast<int64_t>(bitmap.granularity)}}});
  }
  return list;
}

SnapshotInfo describe_snapshot(const Snapshot& snapshot) {
  SnapshotInfo info;
  info.id = snapshot.id;
  info.name = snapshot.name;
  info.vm_state_bytes = snapshot.vm_state_bytes;
  info.date_sec = snapshot.date_sec;
  info.date_nsec = snapshot.date_nsec;
  info.vm_clock_ns = snapshot.vm_clock_ns;
  if (snapshot.icount != ~uint64_t{0}) info.icount = snapshot.icount;
  return info;
}

InfoTree describe_format(const Header& header, const std::vector<BitmapInfo>& bitmaps) {
  const bool version_3 = header.version >= 3;
  InfoTree tree;
  auto add = [&tree](std::string key, auto value) { tree.fields.push_back({std::move(key), std::move(value)}); };
  add("compat", std::string(version_3 ? "1.1" : "0.10"));
  add("compression-type", std::string(header.compression_type == CompressionType::kZstd ? "zstd" : "zlib"));
  if (version_3) add("lazy-refcounts", (header.compatible_features & kLazyRefcounts) != 0);
  if (version_3 && !bitmaps.empty()) add("bitmaps", describe_bitmaps(bitmaps));
  add("refcount-bits", int64_t{1} << header.refcount_order);
  if (header.data_file) add("data-file", *header.data_file);
  if (header.crypt_method != CryptMethod::kNone) {
    const std::string method = header.crypt_method == CryptMethod::kLuks ? "luks" : "aes";
    add("encrypt", std::make_shared<const InfoTree>(InfoTree{{{"format", method}}}));
  }
  if (header.incompatible_features & kExternalDataFile) {
    add("data-file-raw", (header.autoclear_features & kRawExternalData) != 0);
  }
  if (version_3) {
    add("corrupt", (header.incompatible_features & kCorrupt) != 0);
    add("extended-l2", (header.incompatible_features & kExtendedL2) != 0);
  }
  return tree;
}

}  // namespace

Result<ImageInfo> Qcow2::info() {
  const CoReadGuard guard(lock_);
  ImageInfo info;
  info.cluster_size = geometry_.cluster_size();
  info.vm_state_offset = geometry_.l1_needed(virtual_size_) * geometry_.l2_coverage();
  info.encrypted = header_.crypt_method != CryptMethod::kNone;
  info.dirty = (header_.incompatible_features & kDirty) != 0;
  info.backing_filename = header_.backing_file;
  info.backing_format = header_.backing_format;
  for (const Snapshot& snapshot : snapshots_) info.snapshots.push_back(describe_snapshot(snapshot));
  info.format_specific = describe_format(header_, bitmaps());
  return info;
}

}  // namespace coimg::qcow2
