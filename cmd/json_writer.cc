#include "cmd/json_writer.h"

#include <fmt/format.h>

#include <iterator>
#include <type_traits>

namespace coimg {

namespace {

constexpr uint32_t kReplacement = 0xfffd;

/// One character of UTF-8 text.
struct Character {
  uint32_t code = kReplacement;
  size_t bytes = 1;  ///< how far the text advances
};

/// Decodes the character at the start of `text`, which is not empty. Overlong forms, surrogates and what lies beyond
/// Unicode are malformed; of a malformed sequence one byte is skipped.
Character decode_utf8(std::string_view text) {
  const auto byte_at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte_at(0);
  if (lead < 0x80) return {lead, 1};
  size_t length = 0;
  uint32_t code = 0, smallest = 0;
  if ((lead & 0xe0) == 0xc0) {
    length = 2, code = lead & 0x1f, smallest = 0x80;
  } else if ((lead & 0xf0) == 0xe0) {
    length = 3, code = lead & 0x0f, smallest = 0x800;
  } else if ((lead & 0xf8) == 0xf0) {
    length = 4, code = lead & 0x07, smallest = 0x10000;
  } else {
    return {};
  }
  if (text.size() < length) return {};
  for (size_t i = 1; i < length; ++i) {
    if ((byte_at(i) & 0xc0) != 0x80) return {};
    code = code << 6 | (byte_at(i) & 0x3f);
  }
  const bool surrogate = code >= 0xd800 && code <= 0xdfff;
  if (code < smallest || code > 0x10ffff || surrogate) return {};
  return {code, length};
}

void append_escaped(std::string& out, uint32_t code) {
  switch (code) {
    case '"':
      out += "\\\"";
      return;
    case '\\':
      out += "\\\\";
      return;
    case '\b':
      out += "\\b";
      return;
    case '\f':
      out += "\\f";
      return;
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    default:
      break;
  }
  if (code >= 0x20 && code < 0x7f) {
    out += static_cast<char>(code);
  } else if (code <= 0xffff) {
    fmt::format_to(std::back_inserter(out), "\\u{:04X}", code);
  } else {
    const uint32_t offset = code - 0x10000;
    fmt::format_to(std::back_inserter(out), "\\u{:04X}\\u{:04X}", 0xd800 + (offset >> 10), 0xdc00 + (offset & 0x3ff));
  }
}

}  // namespace

std::string quote_json(std::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    const Character character = decode_utf8(text);
    append_escaped(out, character.code);
    text.remove_prefix(character.bytes);
  }
  out += '"';
  return out;
}

std::string JsonValue::render() const {
  std::string out;
  render_to(out, 0);
  out += '\n';
  return out;
}

std::string JsonValue::render_line() const {
  std::string out;
  render_to(out, kOneLine);
  out += '\n';
  return out;
}

void JsonValue::render_to(std::string& out, unsigned level) const {
  const bool one_line = level == kOneLine;
  const unsigned inner = one_line ? level : level + 1;
  const auto start_line = [&](unsigned at_level) {
    if (one_line) return;
    out += '\n';
    out.append(size_t{4} * at_level, ' ');
  };
  const auto separate = [&](size_t index) {
    if (index != 0) out += one_line ? ", " : ",";
    start_line(inner);
  };
  const auto close = [&](char bracket) {
    start_line(level);
    out += bracket;
  };
  std::visit(
      [&](const auto& value) {
        using T = std::decay_t<decltype(value)>;
        if constexpr (std::is_same_v<T, bool>) {
          out += value ? "true" : "false";
        } else if constexpr (std::is_same_v<T, double>) {
          out += fmt::format("{:.2f}", value);
        } else if constexpr (std::is_integral_v<T>) {
          out += std::to_string(value);
        } else if constexpr (std::is_same_v<T, std::string>) {
          out += quote_json(value);
        } else if constexpr (std::is_same_v<T, Array>) {
          out += '[';
          for (size_t i = 0; i < value.size(); ++i) {
            separate(i);
            value[i].render_to(out, inner);
          }
          close(']');
        } else {
          out += '{';
          for (size_t i = 0; i < value.size(); ++i) {
            separate(i);
            out += quote_json(value[i].first) + ": ";
            value[i].second.render_to(out, inner);
          }
          close('}');
        }
      },
      value_);
}

}  // namespace coimg
