// Result and Error: how functions report failure, from the host file up to the command.
#pragma once

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace coimg {

/// Where in a file something is wrong: "refcount table", 48.
struct ErrorPlace {
  std::string structure;           ///< empty: not known, or guest data
  std::optional<uint64_t> offset;  ///< bytes from the start of the file; nothing: not known
};

/// What went wrong: an errno, words that a user can act on, and optionally the file, the place in it, and a hint for a
/// line of its own.
///
/// The message has no capital, full stop or newline of its own. Each layer adds what only it knows with with_context().
class [[nodiscard]] Error {
 public:
  /// `errnum` is a positive errno value.
  Error(int errnum, std::string message) : errnum_(errnum), message_(std::move(message)) {}

  /// An error whose words are those of the errno.
  static Error from_errno(int errnum) { return {errnum, std::strerror(errnum)}; }
  /// "CONTEXT: No such file or directory"
  static Error from_errno(int errnum, std::string_view context) { return from_errno(errnum).with_context(context); }

  [[nodiscard]] int errnum() const { return errnum_; }
  [[nodiscard]] const std::string& message() const { return message_; }
  [[nodiscard]] const std::string& hint() const { return hint_; }
  /// The file that it is about; empty when no layer said so.
  [[nodiscard]] const std::string& file() const { return file_; }
  [[nodiscard]] const ErrorPlace& place() const { return place_; }

  /// The same error, its message preceded by "CONTEXT: ".
  [[nodiscard]] Error with_context(std::string_view context) && {
    message_.insert(0, ": ").insert(0, context);
    return std::move(*this);
  }
  [[nodiscard]] Error with_context(std::string_view context) const& { return Error(*this).with_context(context); }

  /// The same error with a hint: complete lines, shown behind the message without a prefix.
  [[nodiscard]] Error with_hint(std::string hint) && {
    hint_ = std::move(hint);
    return std::move(*this);
  }

  /// Says which file it is about. The innermost layer knows best: a file said before stays.
  [[nodiscard]] Error in_file(std::string_view name) && {
    if (file_.empty()) file_ = name;
    return std::move(*this);
  }
  /// Says where in the file; a place said before stays.
  [[nodiscard]] Error at(std::string structure, uint64_t offset) && {
    if (!place_.offset) place_ = {std::move(structure), offset};
    return std::move(*this);
  }
  [[nodiscard]] Error at(uint64_t offset) && { return std::move(*this).at({}, offset); }
  /// Says that it is about the same file and place as `cause`, which it puts into other words.
  [[nodiscard]] Error where(const Error& cause) && {
    file_ = cause.file_;
    place_ = cause.place_;
    return std::move(*this);
  }

 private:
  int errnum_;
  std::string message_;
  std::string hint_;
  std::string file_;
  ErrorPlace place_;
};

/// A value or an Error. A class, not an alias, so that dropping one is a warning with every compiler.
template <typename T = void>
class [[nodiscard]] Result : public std::expected<T, Error> {
 public:
  using Base = std::expected<T, Error>;
  using Base::Base;
  Result(Error error) : Base(std::unexpect, std::move(error)) {}  // NOLINT(google-explicit-constructor)

  [[nodiscard]] bool ok() const { return this->has_value(); }

  /// Adds context to an error; leaves a value alone.
  [[nodiscard]] Result with_context(std::string_view context) && {
    if (ok()) return std::move(*this);
    return std::move(this->error()).with_context(context);
  }
  /// Says which file an error is about; leaves a value alone.
  [[nodiscard]] Result in_file(std::string_view name) && {
    if (ok()) [[likely]]
      return std::move(*this);
    return std::move(this->error()).in_file(name);
  }
  /// Says where in the file an error is; leaves a value alone.
  [[nodiscard]] Result at(uint64_t offset) && {
    if (ok()) [[likely]]
      return std::move(*this);
    return std::move(this->error()).at(offset);
  }
};

namespace internal {
template <typename T>
T take_value(Result<T>& result) {
  if constexpr (!std::is_void_v<T>) return *std::move(result);
}
}  // namespace internal

}  // namespace coimg

/// Yields the value of a Result, or returns its error from the enclosing function.
#define COIMG_TRY(...) COIMG_TRY_NAMED(COIMG_TRY_PASTE(coimg_try_, __COUNTER__), __VA_ARGS__)

// A name of its own for each use, as the argument may contain another one (a lambda's body).
#define COIMG_TRY_PASTE(a, b) COIMG_TRY_PASTE_EXPANDED(a, b)
#define COIMG_TRY_PASTE_EXPANDED(a, b) a##b
#define COIMG_TRY_NAMED(name, ...)       \
  __extension__({                        \
    auto name = (__VA_ARGS__);           \
    if (!name.ok()) [[unlikely]]         \
      return std::move(name).error();    \
    ::coimg::internal::take_value(name); \
  })
