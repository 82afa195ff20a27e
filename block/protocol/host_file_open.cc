// The driver types `file` and `host_device`: opening and creating host files.
//
// A name is the user's and may be anything: it is opened so that neither a FIFO nor a terminal can block or take over
// the process, and looked at before anything else is done with it.
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <optional>

#include <fmt/format.h>

#include "block/node.h"
#include "block/open.h"
#include "block/protocol/host_file.h"
#include "block/protocol/host_file_driver.h"
#include "block/protocol/new_files.h"
#include "block/util/buffer.h"
#include "block/util/math.h"
#include "coroutine/worker_pool.h"

namespace coimg {

namespace {

constexpr int kOpenFlags = O_CLOEXEC | O_NONBLOCK | O_NOCTTY;

/// Space is allocated in pieces of this size on XFS, which otherwise fragments files that grow by clusters.
constexpr uint64_t kDefaultExtentSizeHint = kMiB;

/// What O_DIRECT asks for where nobody tells: the largest sector size in use.
constexpr uint32_t kSafeAlignment = 4096;

enum class Locking { kAuto, kOn, kOff };

struct FileOptions {
  Locking locking = Locking::kAuto;
};

/// Takes what the driver knows. The engine is chosen for the whole program, so `aio` is only checked.
Result<FileOptions> take_file_options(Options& options, const OpenFlags& flags) {
  FileOptions taken;
  if (const auto locking = options.take_text("locking")) {
    if (*locking == "on") {
      taken.locking = Locking::kOn;
    } else if (*locking == "off") {
      taken.locking = Locking::kOff;
    } else if (*locking != "auto") {
      return Error(EINVAL, fmt::format("invalid parameter value: {}", *locking));
    }
  }
  const auto aio = options.take_text("aio");
  if (aio && *aio != "threads" && *aio != "native" && *aio != "io_uring") {
    return Error(EINVAL, fmt::format("invalid parameter value: {}", *aio));
  }
  if (aio == "native" && !flags.direct) {
    return Error(EINVAL, "aio=native was specified, but it requires cache.direct=on, which was not specified.");
  }
  if (const auto manager = options.take_text("pr-manager")) {  // there are no objects of that type
    return Error(ENODEV, fmt::format("No persistent reservation manager with id '{}'", *manager));
  }
  COIMG_TRY(options.take_bool("x-check-cache-dropped"));
  return taken;
}

std::optional<HostFileKind> kind_of(mode_t mode) {
  if (S_ISREG(mode)) return HostFileKind::kRegular;
  if (S_ISBLK(mode)) return HostFileKind::kBlockDevice;
  if (S_ISCHR(mode)) return HostFileKind::kCharacterDevice;
  return std::nullopt;
}

Error not_a_regular_file(const std::string& filename) {
  return {EINVAL, fmt::format("'file' driver requires '{}' to be a regular file", filename)};
}

Result<uint64_t> device_length(int fd, HostFileKind kind) {
  if (kind == HostFileKind::kBlockDevice) {
    uint64_t bytes = 0;
    if (ioctl(fd, BLKGETSIZE64, &bytes) != 0) return Error::from_errno(errno, "Could not get the device's size");
    return bytes;
  }
  const off_t end = lseek(fd, 0, SEEK_END);
  return end > 0 ? static_cast<uint64_t>(end) : 0;
}

/// The path as a name that means the same file again when it is given to a command.
std::string display_path(const std::string& path) { return split_protocol(path).protocol.empty() ? path : "./" + path; }

/// The alignment of O_DIRECT as the kernel states it (since 6.1), or nothing.
void ask_direct_alignment(HostFileSetup& setup) {
#if defined(STATX_DIOALIGN) && defined(SYS_statx)
  // The kernel's struct has grown behind the end of the C library's.
  union {
    char room[512];
    struct ::statx info;
  } answer{};
  if (syscall(SYS_statx, setup.fd.get(), "", AT_EMPTY_PATH, STATX_DIOALIGN, &answer) != 0) return;
  if (!(answer.info.stx_mask & STATX_DIOALIGN) || answer.info.stx_dio_offset_align == 0) return;
  setup.request_alignment = answer.info.stx_dio_offset_align;
  setup.memory_alignment = std::max<uint32_t>(answer.info.stx_dio_mem_align, 1);
#else
  (void)setup;
#endif
}

/// The smallest alignment that a read at the start gets through with.
uint32_t try_direct_alignment(int fd, uint64_t length) {
  if (length == 0) return kSafeAlignment;  // some file systems read nothing with any alignment
  AlignedBuffer buffer(kSafeAlignment);
  for (const uint32_t alignment : {512U, kSafeAlignment}) {
    if (pread(fd, buffer.data(), alignment, 0) >= 0) return alignment;
  }
  return kSafeAlignment;
}

void find_direct_alignment(HostFileSetup& setup) {
  setup.request_alignment = 0;
  ask_direct_alignment(setup);
  if (setup.request_alignment != 0 && std::has_single_bit(setup.request_alignment) &&
      std::has_single_bit(setup.memory_alignment)) {
    return;
  }
  int sector = 0;
  if (setup.kind == HostFileKind::kBlockDevice && ioctl(setup.fd.get(), BLKSSZGET, &sector) == 0 && sector > 0 &&
      std::has_single_bit(static_cast<unsigned>(sector))) {
    setup.request_alignment = static_cast<uint32_t>(sector);
  } else {
    setup.request_alignment = try_direct_alignment(setup.fd.get(), setup.length);
  }
  setup.memory_alignment = kSafeAlignment;
}

/// Opens and examines. Blocks.
Result<HostFileSetup> open_host_file(const std::string& filename, const OpenFlags& flags, bool devices_only) {
  HostFileSetup setup;
  const auto unnamed = flags.new_files != nullptr ? flags.new_files->find(filename) : std::nullopt;
  const int access = (flags.writable ? O_RDWR : O_RDONLY) | (flags.direct ? O_DIRECT : 0);
  setup.fd = UniqueFd(open(unnamed.value_or(filename).c_str(), access | kOpenFlags));
  const int open_error = errno;

  struct stat info{};
  if (!setup.fd.valid()) {
    // A directory cannot be opened for writing and a socket not at all: say what they are, not what open() says.
    if (stat(filename.c_str(), &info) == 0 && !kind_of(info.st_mode)) return not_a_regular_file(filename);
    Error error = Error::from_errno(open_error, fmt::format("Could not open '{}'", filename));
    if (open_error == EINVAL && flags.direct) {
      return std::move(error).with_hint("The file system may not support O_DIRECT.\n");
    }
    return error;
  }
  if (fstat(setup.fd.get(), &info) != 0) {
    return Error::from_errno(errno, fmt::format("Could not open '{}'", filename));
  }
  const auto kind = kind_of(info.st_mode);
  if (devices_only && kind != HostFileKind::kBlockDevice && kind != HostFileKind::kCharacterDevice) {
    return Error(EINVAL,
                 fmt::format("'host_device' driver requires '{}' to be either a character or block device", filename));
  }
  if (!kind) return not_a_regular_file(filename);

  // Requests are to wait for the device, instead of failing with EAGAIN.
  fcntl(setup.fd.get(), F_SETFL, fcntl(setup.fd.get(), F_GETFL) & ~O_NONBLOCK);
  setup.kind = *kind;
  setup.device = info.st_dev;
  setup.inode = info.st_ino;
  setup.length = *kind == HostFileKind::kRegular ? static_cast<uint64_t>(info.st_size)
                                                 : COIMG_TRY(device_length(setup.fd.get(), *kind));
  if (flags.direct) find_direct_alignment(setup);
  return setup;
}

void set_nocow_best_effort(int fd) {
  int flags = 0;
  if (ioctl(fd, FS_IOC_GETFLAGS, &flags) != 0) return;
  flags |= FS_NOCOW_FL;
  (void)ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

void set_extent_size_hint_best_effort(int fd, uint64_t bytes) {
  struct fsxattr attributes{};
  if (bytes > UINT32_MAX || ioctl(fd, FS_IOC_FSGETXATTR, &attributes) != 0) return;
  if (bytes != 0) {
    attributes.fsx_xflags |= FS_XFLAG_EXTSIZE;
  } else {
    attributes.fsx_xflags &= ~static_cast<uint32_t>(FS_XFLAG_EXTSIZE);
  }
  attributes.fsx_extsize = static_cast<uint32_t>(bytes);
  (void)ioctl(fd, FS_IOC_FSSETXATTR, &attributes);
}

/// Begins an empty file. Blocks.
Result<void> create_host_file(const std::string& filename, const CreateOptions& options, NewFiles& files) {
  const int fd = COIMG_TRY(files.begin(filename));
  struct stat info{};
  if (fstat(fd, &info) != 0) {
    return Error::from_errno(errno, fmt::format("Could not create '{}'", filename)).in_file(filename);
  }
  if (!S_ISREG(info.st_mode)) return {};
  if (options.boolean("nocow")) set_nocow_best_effort(fd);
  set_extent_size_hint_best_effort(fd, options.number("extent_size_hint").value_or(kDefaultExtentSizeHint));
  return {};
}

class HostFileType final : public DriverType {
 public:
  explicit HostFileType(bool devices_only) : devices_only_(devices_only) {}

  std::string_view name() const override { return devices_only_ ? "host_device" : "file"; }
  DriverKind kind() const override { return DriverKind::kProtocol; }
  bool supports_create() const override { return !devices_only_; }

  std::vector<CreateOptionSpec> create_options() const override {
    if (devices_only_) {
      return {
          {"size", OptionType::kSize, "Virtual disk size"},
          {"preallocation", OptionType::kText, "Preallocation mode (allowed values: off)"},
      };
    }
    return {
        {"size", OptionType::kSize, "Virtual disk size"},
        {"nocow", OptionType::kBool, "Turn off copy-on-write (valid only on btrfs)"},
        {"preallocation", OptionType::kText, "Preallocation mode (allowed values: off, falloc, full)"},
        {"extent_size_hint", OptionType::kSize, "Extent size hint for the image file, 0 to disable"},
    };
  }

  Result<std::unique_ptr<BlockDriver>> open(OpenArgs args) const coroutine_fn override {
    const FileOptions file_options = COIMG_TRY(take_file_options(*args.options, args.flags));
    if (args.filename.empty()) {
      return Error(EINVAL, fmt::format("The '{}' block driver requires a file name", name()));
    }
    const bool lock = !args.flags.force_share && file_options.locking != Locking::kOff;
    if (lock && file_options.locking == Locking::kOn && !ofd_locks_available()) {
      return Error(ENOTSUP, "File locking is not supported by this system; use locking=auto or locking=off");
    }
    HostFileSetup setup = COIMG_TRY(co_run_on_worker([&] {
                                      return open_host_file(args.filename, args.flags, devices_only_);
                                    }).in_file(args.filename));
    if (args.node) {
      args.node->set_file_identity({setup.device, setup.inode});
      args.node->set_filename(display_path(args.filename));
    }
    auto file = std::make_unique<HostFile>(*this, args.node, args.filename, args.flags, std::move(setup),
                                           lock && ofd_locks_available());
    COIMG_TRY(file->set_permissions(args.permissions));
    return file;
  }

  Result<void> create_file(const std::string& filename, const CreateOptions& options, NewFiles& files) const
      coroutine_fn override {
    if (filename.empty()) return Error(EINVAL, "The 'file' block driver requires a file name");
    return co_run_on_worker([&] { return create_host_file(filename, options, files); });
  }

 private:
  const bool devices_only_;
};

}  // namespace

std::unique_ptr<DriverType> make_file_driver_type() { return std::make_unique<HostFileType>(/*devices_only=*/false); }
std::unique_ptr<DriverType> make_host_device_driver_type() {
  return std::make_unique<HostFileType>(/*devices_only=*/true);
}

}  // namespace coimg
