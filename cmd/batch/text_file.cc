#include "cmd/batch/text_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "block/util/unique_fd.h"

namespace coimg {

namespace {

constexpr size_t kMaxBytes = size_t{64} << 20;
constexpr size_t kPieceBytes = size_t{1} << 16;

}  // namespace

Result<std::string> read_text_file(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return Error::from_errno(errno);
  std::string text;
  for (;;) {
    const size_t length = text.size();
    if (length > kMaxBytes) return Error(EFBIG, "the file is too long");
    text.resize(length + kPieceBytes);
    const ssize_t count = read(fd.get(), text.data() + length, kPieceBytes);
    if (count < 0 && errno != EINTR) return Error::from_errno(errno);
    text.resize(length + (count > 0 ? static_cast<size_t>(count) : 0));
    if (count == 0) return text;
  }
}

}  // namespace coimg
