// The driver interface: what a format or protocol implements, and what the block layer guarantees to it.
//
// A driver object is the state of one open image. The block layer (block/node.h) calls it with requests that are
// already checked against the length, aligned to limits().request_alignment and split to limits().max_transfer. Calls
// may overlap; all come from one AioContext, so a driver needs coroutine locks but no thread locks.
//
// Formats see requests within their length, rounded up to a sector as guests see it. Protocols are files: writes may
// begin or end beyond the length and then extend the file (ENOSPC where it cannot grow), as formats grow by writing;
// reads beyond the end never reach them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "block/io_vector.h"
#include "block/options.h"
#include "block/placement.h"
#include "block/util/result.h"
#include "coroutine/annotations.h"

namespace coimg {

class BlockNode;
struct Permissions;
class DriverType;
class DriverRegistry;
class NewFiles;

enum class Preallocation { kOff, kMetadata, kFalloc, kFull };
/// "off", "metadata", "falloc" and "full"; nothing for other names.
std::optional<Preallocation> find_preallocation(std::string_view name);

/// Limits of a driver's requests, constant after open except where truncate changes them.
struct BlockLimits {
  uint32_t request_alignment = 1;             ///< offset and length of every read and write, power of two
  uint32_t memory_alignment = 1;              ///< of buffers (O_DIRECT)
  uint64_t max_transfer = uint64_t{1} << 30;  ///< bytes of one read or write
  uint64_t zero_alignment = 1;                ///< what pwrite_zeroes prefers to be aligned to (cluster size)
  uint64_t discard_alignment = 1;             ///< what pdiscard can act on
  uint64_t compression_unit = 0;              ///< bytes of one compressed cluster, decoded as a whole; 0: has none
};

/// What a range of a node's own layer holds. The whole range [offset, offset + bytes) has the same answer.
struct BlockStatus {
  uint64_t bytes = 0;      ///< length of the range; > 0, at most what was asked
  bool allocated = false;  ///< this layer decides the content; false: look at the backing file
  bool data = false;       ///< bytes are stored for it
  bool zero = false;       ///< known to read as zeros
  bool compressed = false;
  std::optional<uint64_t> host_offset = {};  ///< where in `file` the bytes lie, when that means something
  const BlockNode* file = nullptr;           ///< the node that host_offset refers to
  bool ask_file = false;  ///< zero may be refined by asking `file` at host_offset (a raw data cluster over a hole)
};

struct WriteOptions {
  bool force_unit_access = false;  ///< durable before the call returns; the node's matter, not the driver's
  PlacementOrder::Ticket* placement = nullptr;  ///< see placement.h; the driver may ignore it
  unsigned compression_level = 0;               ///< of pwrite_compressed: 1 fast to 19 small; 0: the format's choice
};

struct ZeroOptions {
  bool may_unmap = false;    ///< the driver may deallocate
  bool no_fallback = false;  ///< fail with ENOTSUP rather than write buffers of zeros
  PlacementOrder::Ticket* placement = nullptr;
};

struct ByteRange {
  uint64_t offset = 0, bytes = 0;
};

/// Snapshot list entry for info.
struct SnapshotInfo {
  std::string id, name;
  uint64_t vm_state_bytes = 0;
  uint32_t date_sec = 0, date_nsec = 0;
  uint64_t vm_clock_ns = 0;
  std::optional<uint64_t> icount;
};

/// Which internal snapshot is meant; what is not given matches every one.
struct SnapshotSelector {
  std::optional<std::string> id, name;

  [[nodiscard]] bool matches(const std::string& other_id, const std::string& other_name) const {
    return (!id || *id == other_id) && (!name || *name == other_name);
  }
};

/// A persistent dirty bitmap: it tells which parts of the disk have changed while it recorded.
struct BitmapInfo {
  std::string name;
  uint64_t granularity = 0;   ///< bytes that one bit stands for, a power of two; 0 for a new one: the format chooses
  bool recording = true;      ///< changes of the disk set bits
  bool inconsistent = false;  ///< changes may have been missed: it can only be removed
};

/// Receives one dirty range after the other, in ascending order, in bytes. Does not yield.
using DirtyVisitor = std::function<void(uint64_t offset, uint64_t bytes)>;

/// A tree of values for "Format specific information": rendered by cmd as text and JSON, in the order given.
struct InfoTree;
struct InfoField {
  std::string key;  ///< in JSON spelling ("compression-type"); human output shows blanks for dashes
  std::variant<std::string, int64_t, bool, std::shared_ptr<const InfoTree>, std::vector<InfoTree>,
               std::vector<std::string>>
      value;
};
struct InfoTree {
  std::vector<InfoField> fields;
};

/// What a format tells about an open image beyond its length.
struct ImageInfo {
  std::optional<uint64_t> cluster_size;
  uint64_t vm_state_offset = 0;  ///< where behind the disk a machine's state begins; 0: there is no place for one
  bool encrypted = false;
  bool dirty = false;            ///< not cleanly closed
  std::string backing_filename;  ///< as stored; empty for none
  std::string backing_format;    ///< as stored
  bool backing_unused = false;   ///< the image shows nothing of it: it is not opened, and need not exist
  std::vector<SnapshotInfo> snapshots;
  std::optional<InfoTree> format_specific;
};

enum class RepairMode { kNone, kLeaks, kAll };

/// The outcome of check. Counters as in specs/qcow2.md 23.3.
struct CheckResult {
  uint64_t corruptions = 0, leaks = 0, check_errors = 0;
  uint64_t corruptions_fixed = 0, leaks_fixed = 0;
  uint64_t total_clusters = 0, allocated_clusters = 0, fragmented_clusters = 0, compressed_clusters = 0;
  uint64_t image_end_offset = 0;
};

/// Receives one finding at a time, as a line for stderr without newline.
class CheckReporter {
 public:
  virtual ~CheckReporter() = default;
  virtual void finding(std::string_view line) = 0;
};

struct CheckOptions {
  RepairMode repair = RepairMode::kNone;
  CheckReporter* reporter = nullptr;  ///< never null when called by the block layer
  /// Asked between tables, but not for a repair, which is not left half-way: end with ECANCELED.
  std::function<bool()> should_stop = {};
};

/// How measure counts what a new image needs.
enum class MeasureMethod {
  kAllTables,    ///< all tables that the disk can ever have, and the data: qemu-img's figures
  kCopy,         ///< what a copy makes of the disk, when none of what block status calls data are zeros
  kCopyNonZero,  ///< the same, without the zeros that a copy leaves out: reads the data
};

/// What measure is asked about: a new image for an empty disk, or for a copy of `source`.
struct MeasureRequest {
  uint64_t virtual_size = 0;    ///< in bytes; the source's, if there is one
  BlockNode* source = nullptr;  ///< may be null
  MeasureMethod method = MeasureMethod::kAllTables;
};

/// Sizes that measure predicts, in bytes.
struct MeasureResult {
  uint64_t required = 0, fully_allocated = 0;
  std::optional<uint64_t> bitmaps = {};     ///< what they add to `required`; nothing: the image cannot have them
  std::optional<Error> bitmaps_error = {};  ///< why that is not known
};

/// How far a long operation is, in units of its own.
using ProgressCallback = std::function<void(uint64_t done, uint64_t total)>;

/// The state of one open image.
class BlockDriver {
 public:
  virtual ~BlockDriver() = default;
  BlockDriver() = default;
  BlockDriver(const BlockDriver&) = delete;
  BlockDriver& operator=(const BlockDriver&) = delete;

  virtual const DriverType& type() const = 0;

  /// Virtual size in bytes.
  virtual uint64_t length() const = 0;
  virtual BlockLimits limits() const { return {}; }

  /// Writes back and releases everything. Called exactly once; on error the state is released all the same.
  virtual Result<void> close() coroutine_fn { return {}; }

  /// Reads iov.size() bytes at `offset`. Aligned, not empty, inside the length (rounded up to the alignment: a driver
  /// fills what lies beyond its end with zeros).
  virtual Result<void> preadv(uint64_t offset, const IoVector& iov) coroutine_fn = 0;

  /// Writes. On error the range may hold old, new or mixed bytes; nothing else has changed.
  virtual Result<void> pwritev(uint64_t offset, const IoVector& iov, const WriteOptions& options) coroutine_fn;

  /// Makes the range read as zeros. ENOTSUP: the block layer writes zeros instead. Any alignment to
  /// request_alignment; the driver handles what it can do well and returns ENOTSUP for the rest.
  virtual Result<void> pwrite_zeroes(uint64_t offset, uint64_t bytes, const ZeroOptions& options) coroutine_fn;

  /// The range's content is no longer needed. May do nothing (ENOTSUP counts as that); afterwards old content or zeros
  /// are read. Aligned to limits().discard_alignment and to sectors, but for an end that is the image's.
  virtual Result<void> pdiscard(uint64_t offset, uint64_t bytes) coroutine_fn;

  /// Protocols: gives ranges that are going to be written their space at once, as it is cheaper in one go and where
  /// each is small and far from the next. No content changes, nor the length. ENOSPC or EDQUOT when there is not
  /// enough; nothing happens where space cannot be had in advance.
  virtual Result<void> reserve(std::span<const ByteRange> ranges) coroutine_fn {
    (void)ranges;
    return {};
  }

  /// Writes whole clusters (the disk's last one may be partial) compressed, each on its own; what does not shrink is
  /// stored plain. Aligned to limits().compression_unit. The clusters must not be allocated yet (EIO).
  virtual Result<void> pwrite_compressed(uint64_t offset, const IoVector& iov, const WriteOptions& options)
      coroutine_fn;

  /// Everything written before the call is durable when it returns.
  virtual Result<void> flush() coroutine_fn { return {}; }

  /// The status of the longest range from `offset` on that has one answer, at most `bytes` (> 0, inside the length;
  /// of any alignment). With `want_zero` false a driver may skip costly looks for zeros. The default: all is data.
  virtual Result<BlockStatus> block_status(uint64_t offset, uint64_t bytes, bool want_zero) coroutine_fn;

  /// Changes the length. New space reads as zeros (the driver sees to it that no backing data shows).
  virtual Result<void> truncate(uint64_t new_length, Preallocation preallocation) coroutine_fn;

  virtual Result<ImageInfo> info() coroutine_fn { return ImageInfo{}; }

  /// Internal snapshots; ENOTSUP for formats that have none. What they list is part of info().
  ///
  /// Keeps the disk as it is now under `name`, with an id of the driver's choice.
  virtual Result<void> create_snapshot(const std::string& name) coroutine_fn;
  /// Makes the disk what it was when the snapshot was taken, its length too. ENOENT when there is none.
  virtual Result<void> apply_snapshot(const SnapshotSelector& selector) coroutine_fn;
  /// One that is damaged goes, too: what it took may be leaked until a repair.
  virtual Result<void> delete_snapshot(const SnapshotSelector& selector) coroutine_fn;
  /// From now on a read-only image shows the snapshot, in the length that the disk had then, instead of the disk.
  virtual Result<void> show_snapshot(const SnapshotSelector& selector) coroutine_fn;

  /// Persistent dirty bitmaps. The defaults are those of a format that has none: there is no bitmap of any name
  /// (ENOENT), and none can be added (ENOTSUP). Changes are durable when the image is closed without an error.
  ///
  virtual bool supports_bitmaps() const { return false; }
  virtual std::vector<BitmapInfo> bitmaps() const { return {}; }
  /// A clear bitmap. The name is not empty, the granularity 0 or a power of two from 512 to 2 GiB. EEXIST for a name
  /// that is there.
  virtual Result<void> add_bitmap(const BitmapInfo& bitmap) coroutine_fn;
  virtual Result<void> remove_bitmap(const std::string& name) coroutine_fn;
  /// The others: EINVAL for an inconsistent bitmap.
  virtual Result<void> clear_bitmap(const std::string& name) coroutine_fn;
  virtual Result<void> set_bitmap_recording(const std::string& name, bool recording) coroutine_fn;
  /// Adds what is dirty in a bitmap of `source`, which may be this image; the granularities may differ. EINVAL when the
  /// disks' lengths do.
  virtual Result<void> merge_bitmap(const std::string& name, BlockDriver& source, const std::string& source_name)
      coroutine_fn;
  virtual Result<void> visit_bitmap(const std::string& name, const DirtyVisitor& visitor) coroutine_fn;

  /// The state of a machine, which images can hold besides its disk; of any size, and zeros where nothing was written.
  /// ENOTSUP for formats that have no place for one.
  virtual Result<void> preadv_vm_state(uint64_t offset, const IoVector& iov) coroutine_fn;
  virtual Result<void> pwritev_vm_state(uint64_t offset, const IoVector& iov) coroutine_fn;

  virtual Result<CheckResult> check(const CheckOptions& options) coroutine_fn;

  /// Stores another name and format of the backing file, empty for none; the open image goes on with the one it has.
  /// What was written before is durable before the new name is. Errors: ENOSPC when the image has no room for them.
  virtual Result<void> change_backing_file(const std::string& name, const std::string& format) coroutine_fn;

  /// Whether change_backing_file() would take them, to be asked before work that would be for nothing. Changes nothing.
  [[nodiscard]] virtual Result<void> check_backing_change(const std::string& name, const std::string& format) const {
    (void)name, (void)format;
    return {};
  }

  /// Drops all content, so that everything shows the backing file; durable when it returns. Internal snapshots stay.
  virtual Result<void> make_empty() coroutine_fn;

  /// Changes creation options of the image; see DriverType::amend_options().
  virtual Result<void> amend(const CreateOptions& options, const ProgressCallback& on_progress) coroutine_fn;

  /// True when a freshly created image of this driver reads as zeros everywhere.
  virtual bool created_reads_as_zeros() const { return false; }

  /// Bytes that the host spends on the image's own file; nothing when that is not known.
  virtual Result<std::optional<uint64_t>> allocated_file_size() coroutine_fn;

  /// Protocols: exchanges the locks of the file for those of `permissions`. A file is opened without any, so that it
  /// can be probed before it is known what its format needs. On error the old ones are in force.
  virtual Result<void> set_permissions(const Permissions& permissions) coroutine_fn {
    (void)permissions;
    return {};
  }
};

enum class DriverKind { kFormat, kProtocol };

/// What may be shared between those who have one file open; bits as in specs/qcow2.md 24.1.
enum Permission : unsigned {
  kPermConsistentRead = 1,
  kPermWrite = 2,
  kPermWriteUnchanged = 4,
  kPermResize = 8,
  kPermAll = 15,
};
struct Permissions {
  unsigned used = 0;
  unsigned shared = kPermAll;
  friend bool operator==(const Permissions&, const Permissions&) = default;
};

/// Writes whose bytes are all zero: stored as such, or as zeroes, which may give up the space where the image was
/// opened with discard=unmap.
enum class DetectZeroes { kOff, kOn, kUnmap };

/// How an image is to be opened.
struct OpenFlags {
  bool writable = false;
  bool resizable = false;    ///< the user of a writable image will change its length (raw: takes the resize permission)
  bool no_io = false;        ///< metadata only (info): no backing or data files, no guest data
  bool no_backing = false;   ///< do not open the backing chain
  bool force_share = false;  ///< -U: no locks
  bool exclusive_source = false;  ///< source of convert, image file: others may not write, whatever the format
  bool check = false;             ///< opened by check: some damage is tolerated
  unsigned writable_below = 0;    ///< the layer so far below is opened writable and resizable too (commit); 0: none
  bool direct = false;            ///< O_DIRECT
  bool no_flush = false;          ///< drop flush requests (cache=unsafe)
  bool write_through = false;     ///< each write durable
  bool discard_unmap = false;     ///< pass guest discards on to the file
  DetectZeroes detect_zeroes = DetectZeroes::kOff;  ///< of this node alone; its children have their own
  const NewFiles* new_files = nullptr;  ///< host files that are being made and have no names yet; outlives the node
};

/// Opens the file that holds an image's guest data, where the format keeps that in a file of its own.
class DataFileOpener {
 public:
  virtual ~DataFileOpener() = default;
  /// Whether the user says which file it is; that goes before what the image says.
  [[nodiscard]] virtual bool named_by_user() const = 0;
  /// Whether a name that the image has is followed; else the two below fail, unless the user names the file.
  [[nodiscard]] virtual bool follows_stored_names() const { return true; }
  /// Whether open_image() knows the format, and a backing file may be in it.
  [[nodiscard]] virtual bool knows_format(std::string_view name) const = 0;

  /// Opens the file, as writable as the image is; it becomes the node's data_file(). `stored_name`, what the image
  /// says, is a plain path, relative to the working directory. One of the two is called, once at most.
  virtual Result<BlockNode*> open(const std::string& stored_name) coroutine_fn = 0;
  /// The same for guest data in an image of `format`, which is never probed. The name is a backing file's: relative to
  /// the image's directory. Others may not write to the file meanwhile. Errors: EINVAL, ELOOP for a file that has
  /// another role in the chain already.
  virtual Result<BlockNode*> open_image(const std::string& stored_name, const std::string& format) coroutine_fn = 0;
};

/// The file that is to hold the guest data of a new image.
struct DataFilePlan {
  std::string path;         ///< on the host
  std::string format = {};  ///< of the image in it, which is used if it is there; empty: plain bytes, made anew
};

/// A driver's static side: its names, and how to recognise, open and create.
class DriverType {
 public:
  virtual ~DriverType() = default;
  virtual std::string_view name() const = 0;
  virtual DriverKind kind() const = 0;

  /// How sure the format is that `head` (the first bytes of a file, up to 2048) is its own: 0 no, 100 certain.
  virtual int probe(std::span<const std::byte> head) const {
    (void)head;
    return 0;
  }

  struct OpenArgs {
    BlockNode* node = nullptr;   ///< the one being opened; its backing() is set between open() and the first request
    BlockNode* file = nullptr;   ///< formats and what has a child_key(): the node below, owned by the one being opened
    std::string filename;        ///< of the image, for messages and for resolving relative names
    Options* options = nullptr;  ///< the driver takes what it knows; the block layer refuses what is left
    OpenFlags flags;
    Permissions permissions;              ///< protocols: what to lock
    DataFileOpener* data_file = nullptr;  ///< for formats that support one
  };
  virtual Result<std::unique_ptr<BlockDriver>> open(OpenArgs args) const coroutine_fn = 0;

  /// Which permissions a format needs on its file for the given flags (cli.md 2.10).
  virtual Permissions file_permissions(const OpenFlags& flags) const;

  virtual bool supports_create() const { return false; }
  virtual bool supports_backing() const { return false; }
  virtual bool supports_compression() const { return false; }
  virtual bool supports_check() const { return false; }
  virtual bool supports_data_file() const { return false; }
  /// Whether a converted image leaves to its backing file what is the same there, whatever the source's layers are.
  /// Where that is false it gets what its source's top layer has, as qemu-img does it.
  virtual bool shares_with_backing() const { return false; }
  /// Where the data of an image called `filename` with these options is to lie; nothing: in the image itself.
  virtual std::optional<DataFilePlan> data_file_of(const std::string& filename, const CreateOptions& options) const {
    (void)filename, (void)options;
    return std::nullopt;
  }
  /// In the order of the "Formatting" line.
  virtual std::vector<CreateOptionSpec> create_options() const { return {}; }
  /// The options that amend() takes, in any order; none: it is not supported.
  virtual std::vector<CreateOptionSpec> amend_options() const { return {}; }

  /// Protocols: whether names that begin with "SCHEME:" are theirs.
  virtual bool handles_scheme(std::string_view scheme) const {
    return kind() == DriverKind::kProtocol && scheme == name();
  }

  /// Protocols that lie on another node: the option that says on which ("image"). It is open, and the node's file(),
  /// when open() is called.
  virtual std::string_view child_key() const { return {}; }
  /// Protocols: whether names stand for options, which parse_name() sets, "x-KEY" for the name of the child. Such a
  /// protocol takes no name as the option `filename`.
  virtual bool has_option_names() const { return false; }
  virtual Result<void> parse_name(const std::string& name, Options& options) const {
    (void)name, (void)options;
    return {};
  }

  /// Protocols: begins the file `filename` in `files`, empty, once nobody else uses the one that is there.
  virtual Result<void> create_file(const std::string& filename, const CreateOptions& options, NewFiles& files) const
      coroutine_fn {
    (void)filename, (void)options, (void)files;
    return Error(ENOTSUP, "Protocol driver '" + std::string(name()) + "' does not support image creation");
  }

  /// Formats: completes the options of a new image by what follows from others, or from files that exist, before
  /// anything is made. With `look_at_files` false none is opened.
  virtual Result<void> complete_create_options(const DriverRegistry& registry, const std::string& filename,
                                               bool look_at_files, CreateOptions& options) const coroutine_fn {
    (void)registry, (void)filename, (void)look_at_files, (void)options;
    return {};
  }

  /// Formats: writes an empty image into `file`, an open, writable, empty node. `options` has the size and is complete.
  /// The data file, if there is one, has that size already; plain bytes read as zeros.
  /// Errors: the message names what is wrong, without the file name (the caller adds it).
  virtual Result<void> create(BlockNode* file, const std::string& filename, const CreateOptions& options) const
      coroutine_fn;

  /// Checks what needs no file (cluster size, version, ...) so that nothing is touched for bad options.
  virtual Result<void> validate_create(const CreateOptions& options) const {
    (void)options;
    return {};
  }

  /// How large the file of a new image with these options would become.
  /// Errors: bad options; those of reading block status and, where the method does that, data.
  virtual Result<MeasureResult> measure(const CreateOptions& options, const MeasureRequest& request) const coroutine_fn;
};

/// The drivers that the program has. Filled by the program at start, constant afterwards; outlives all nodes.
class DriverRegistry {
 public:
  void add(std::unique_ptr<DriverType> type);
  [[nodiscard]] const DriverType* find(std::string_view name) const;
  [[nodiscard]] const std::vector<std::unique_ptr<DriverType>>& types() const { return types_; }
  /// The format that is most sure; raw when none is. Errors: ENOTSUP for a known foreign format ("Unknown driver
  /// 'vmdk'").
  [[nodiscard]] Result<const DriverType*> probe(std::span<const std::byte> head) const;

  /// From now on images are taken for hostile: no file that only an image names is opened, and no format is recognised
  /// by its contents, except to tell what an image is (OpenFlags::no_io).
  void distrust_images() { trusts_images_ = false; }
  [[nodiscard]] bool trusts_images() const { return trusts_images_; }

 private:
  bool trusts_images_ = true;
  std::vector<std::unique_ptr<DriverType>> types_;
};

}  // namespace coimg
