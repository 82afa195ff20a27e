// Making new qcow2 images, and telling how large they will become.
//
// create_options.cc makes a header of what the user asked for, fresh_layout gives everything its place, create.cc
// writes it.
//
// Format: qcow2, section "Create".
#pragma once

#include <cstdint>
#include <optional>

#include "block/driver.h"
#include "formats/qcow2/fresh_layout.h"
#include "formats/qcow2/header.h"

namespace coimg::qcow2 {

/// The header that an image with these creation options gets, all but the places of its tables.
/// Errors: with qemu-img's words for what is wrong or contradicts itself, in its order; ENOTSUP for features that this
/// program cannot create.
Result<Header> header_for_options(const CreateOptions& options);

/// The part of it that says how large metadata is. Errors: with qemu-img's words for measure.
Result<Header> header_for_measure(const CreateOptions& options);

/// The version that a compatibility level names, in either spelling; nothing for other names.
std::optional<uint32_t> find_version(std::string_view compat);
/// The binary logarithm of the option refcount_bits. Errors: EINVAL for a width that does not exist.
Result<uint32_t> refcount_order_of(const CreateOptions& options);

/// Errors: EINVAL for a mode that does not exist.
Result<Preallocation> preallocation_of(const CreateOptions& options);

/// Writes an empty image into the empty, writable `file`.
/// Crash: until the end the file is no qcow2 image.
Result<void> create_image(BlockNode& file, const CreateOptions& options) coroutine_fn;

/// A new image's header and what its file holds when it has been made: the plan of create_image().
struct CreatePlan {
  Header header;
  Preallocation preallocation = Preallocation::kOff;  ///< as the options ask for it
  bool preallocated = false;                          ///< every cluster has its place, also for a raw data file
  FreshLayout layout;
};
/// Errors: those of header_for_options(); EFBIG when the refcount table would become too large.
Result<CreatePlan> plan_image(const CreateOptions& options);

/// How large an image with these options becomes; see copy_size.h. With a backing file it is not known what a copy can
/// leave to it: all clusters count as written.
/// Errors: for the options that have an influence, those of header_for_options() with qemu-img's words for measure;
/// EFBIG for a disk that is too large; those of reading block status and data.
Result<MeasureResult> measure_image(const CreateOptions& options, const MeasureRequest& request) coroutine_fn;

}  // namespace coimg::qcow2
