#include "cmd/batch/shell_words.h"

#include <fmt/format.h>

#include <cerrno>

namespace coimg {

namespace {

constexpr std::string_view kBlanks = " \t\n";
constexpr std::string_view kShellOnly = "|&;<>()$`";       ///< unquoted
constexpr std::string_view kShellOnlyInQuotes = "$`";      ///< between double quotes
constexpr std::string_view kEscapableInQuotes = "\\\"$`";  ///< the backslash stays in front of others there

Error needs_shell(char character) { return {EINVAL, fmt::format("'{}' would need a shell; quote it", character)}; }

/// Takes one quoted part off `text`, without its quotes.
Result<std::string> take_quoted(std::string_view& text) {
  const char quote = text.front();
  std::string part;
  for (size_t i = 1; i < text.size(); ++i) {
    char character = text[i];
    if (character == quote) {
      text.remove_prefix(i + 1);
      return part;
    }
    if (quote == '"') {
      if (kShellOnlyInQuotes.find(character) != std::string_view::npos) return needs_shell(character);
      const bool escapes =
          character == '\\' && i + 1 < text.size() && kEscapableInQuotes.find(text[i + 1]) != std::string_view::npos;
      if (escapes) character = text[++i];
    }
    part += character;
  }
  return Error(EINVAL, fmt::format("a quote ({}) does not end", quote));
}

/// Takes one word off `text`, which begins with it.
Result<std::string> take_word(std::string_view& text) {
  std::string word;
  while (!text.empty() && kBlanks.find(text.front()) == std::string_view::npos) {
    char character = text.front();
    if (character == '\'' || character == '"') {
      word += COIMG_TRY(take_quoted(text));
      continue;
    }
    if (kShellOnly.find(character) != std::string_view::npos) return needs_shell(character);
    if (character == '\\') {
      text.remove_prefix(1);
      if (text.empty()) return Error(EINVAL, "a backslash ends the command");
      character = text.front();
    }
    word += character;
    text.remove_prefix(1);
  }
  return word;
}

}  // namespace

Result<std::vector<std::string>> split_shell_words(std::string_view text) {
  std::vector<std::string> words;
  for (;;) {
    const size_t start = text.find_first_not_of(kBlanks);
    if (start == std::string_view::npos) return words;
    text.remove_prefix(start);
    words.push_back(COIMG_TRY(take_word(text)));
  }
}

}  // namespace coimg
