// Another name of the image file, for one that was moved or renamed.
//
// Format: add-cow, section "rebase: Header change".
#include <fmt/format.h>

#include "block/open.h"
#include "formats/add_cow/add_cow.h"

namespace coimg::add_cow {

namespace {

/// Plain bytes are a raw image.
std::string_view format_of(const BlockNode& image) {
  return image.type().kind() == DriverKind::kProtocol ? "raw" : image.type().name();
}

}  // namespace

/// The new name has to lead to the image file that is open: another one would show other data.
Result<void> AddCow::amend(const CreateOptions& options, const ProgressCallback&) {
  const TrackedRequest everything(in_flight_, 0, kMaxFileOffset, RangeMode::kExclusive);
  Header header = header_;
  if (options.given("image_file")) header.image_file = options.text("image_file").value_or("");
  if (options.given("image_fmt")) header.image_format = options.text("image_fmt").value_or("");
  if (header.image_file.size() > kMaxImageNameBytes) return Error::from_errno(ENAMETOOLONG);

  const auto identity = find_host_file(resolve_backing_name(file_.filename(), header.image_file));
  if (header.image_file.empty() || !identity || identity != image_->file_identity()) {
    return Error(EINVAL, fmt::format("'{}' is not the image file that the image has been opened with, '{}'",
                                     header.image_file, image_->filename()));
  }
  if (header.image_format != format_of(*image_)) {
    return Error(
        EINVAL, fmt::format("the format of the image file is '{}', not '{}'", format_of(*image_), header.image_format));
  }
  if (header.image_file != header_.image_file) header.image_name = COIMG_TRY(place_name(header.image_file));
  COIMG_TRY(flush());
  return replace_header(std::move(header));
}

}  // namespace coimg::add_cow
