// JSON output: an ordered tree, rendered as scripts that read it line by line expect.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace coimg {

/// A JSON value; a double is finite, and shown with two decimals. Members of objects keep the order in which they were
/// added, as callers compare output bytewise.
class JsonValue {
 public:
  using Array = std::vector<JsonValue>;
  using Object = std::vector<std::pair<std::string, JsonValue>>;

  JsonValue(int64_t number) : value_(number) {}                    // NOLINT(google-explicit-constructor)
  JsonValue(uint64_t number) : value_(number) {}                   // NOLINT(google-explicit-constructor)
  JsonValue(uint32_t number) : value_(uint64_t{number}) {}         // NOLINT(google-explicit-constructor)
  JsonValue(bool flag) : value_(flag) {}                           // NOLINT(google-explicit-constructor)
  JsonValue(double number) : value_(number) {}                     // NOLINT(google-explicit-constructor)
  JsonValue(std::string text) : value_(std::move(text)) {}         // NOLINT(google-explicit-constructor)
  JsonValue(const char* text) : value_(std::string(text)) {}       // NOLINT(google-explicit-constructor)
  JsonValue(std::string_view text) : value_(std::string(text)) {}  // NOLINT(google-explicit-constructor)

  static JsonValue array() { return JsonValue(Storage(Array{})); }
  static JsonValue object() { return JsonValue(Storage(Object{})); }

  /// Appends to an array.
  void append(JsonValue element) { std::get<Array>(value_).push_back(std::move(element)); }
  /// Appends a member to an object.
  void add(std::string key, JsonValue member) {
    std::get<Object>(value_).emplace_back(std::move(key), std::move(member));
  }

  /// One member or element a line, 4 blanks a level, pure ASCII, a newline at the end.
  [[nodiscard]] std::string render() const;
  /// The same on one line.
  [[nodiscard]] std::string render_line() const;

 private:
  using Storage = std::variant<int64_t, uint64_t, double, bool, std::string, Array, Object>;
  explicit JsonValue(Storage value) : value_(std::move(value)) {}
  static constexpr unsigned kOneLine = ~0U;  ///< as a level
  void render_to(std::string& out, unsigned level) const;

  Storage value_;
};

/// A JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD, other non-ASCII characters \uXXXX.
std::string quote_json(std::string_view text);

}  // namespace coimg
