#include "cmd/getopt_compat.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <utility>

namespace coimg {

namespace {

using Stop = GetoptResult::Stop;

/// The option that `name` means: an exact name, or the only option that a prefix fits. Null when there is none or more
/// than one.
const GetoptOption* find_long(std::span<const GetoptOption> options, std::string_view name) {
  const GetoptOption* by_prefix = nullptr;
  bool ambiguous = false;
  for (const GetoptOption& option : options) {
    for (const std::string& long_name : option.long_names) {
      if (long_name == name) return &option;
      if (!long_name.starts_with(name)) continue;
      ambiguous |= by_prefix != nullptr && by_prefix != &option;
      by_prefix = &option;
    }
  }
  return ambiguous ? nullptr : by_prefix;
}

const GetoptOption* find_short(std::span<const GetoptOption> options, char letter) {
  for (const GetoptOption& option : options) {
    if (option.short_letters.find(letter) != std::string::npos) return &option;
  }
  return nullptr;
}

/// One pass over the words.
class Splitter {
 public:
  Splitter(std::span<const GetoptOption> options, std::span<const std::string> words)
      : options_(options), words_(words) {}

  GetoptResult run(OperandOrder order) {
    while (next_ < words_.size() && result_.stop == Stop::kEnd) {
      const std::string& word = words_[next_++];
      if (word == "--") {
        take_rest_as_operands();
      } else if (word.starts_with("--")) {
        take_long(word);
      } else if (word.size() > 1 && word[0] == '-') {
        take_shorts(word);
      } else if (order == OperandOrder::kStopAtFirst) {
        --next_;
        take_rest_as_operands();
      } else {
        result_.operands.push_back(word);
      }
    }
    return std::move(result_);
  }

 private:
  void take_rest_as_operands() {
    result_.operands.insert(result_.operands.end(), words_.begin() + static_cast<ptrdiff_t>(next_), words_.end());
    next_ = words_.size();
  }

  void take_long(const std::string& word) {
    const std::string_view text = std::string_view(word).substr(2);
    const size_t equals = text.find('=');
    const GetoptOption* option = find_long(options_, text.substr(0, equals));
    const bool has_value = equals != std::string_view::npos;
    if (option == nullptr) return complain(Stop::kUnrecognized, word, fmt::format("unrecognized option '{}'", word));
    if (has_value && !option->takes_value) {
      return complain(Stop::kUnrecognized, word,
                      fmt::format("option '{}' doesn't allow an argument", option->canonical_word()));
    }
    if (has_value) {
      add(*option, std::string(text.substr(equals + 1)));
    } else if (option->takes_value) {
      add_with_next_word(*option, word, fmt::format("option '{}' requires an argument", option->canonical_word()));
    } else {
      add(*option);
    }
  }

  /// A group of letters; the first one that takes a value has the rest of the word for it.
  void take_shorts(const std::string& word) {
    for (size_t i = 1; i < word.size() && result_.stop == Stop::kEnd; ++i) {
      const GetoptOption* option = find_short(options_, word[i]);
      if (option == nullptr) return complain(Stop::kUnrecognized, word, fmt::format("invalid option -- '{}'", word[i]));
      if (!option->takes_value) {
        add(*option);
        continue;
      }
      if (i + 1 < word.size()) return add(*option, word.substr(i + 1));
      return add_with_next_word(*option, word, fmt::format("option requires an argument -- '{}'", word[i]));
    }
  }

  void add_with_next_word(const GetoptOption& option, const std::string& word, std::string getopt_message) {
    if (next_ == words_.size()) return complain(Stop::kMissingValue, word, std::move(getopt_message));
    add(option, words_[next_++]);
  }

  void add(const GetoptOption& option, std::string value) {
    result_.words.push_back(option.canonical_word());
    result_.words.push_back(std::move(value));
  }

  void add(const GetoptOption& option) {
    result_.words.push_back(option.canonical_word());
    if (option.ends_parsing) result_.stop = Stop::kEarly;
  }

  void complain(Stop stop, const std::string& word, std::string getopt_message) {
    result_.stop = stop;
    result_.bad_word = word;
    result_.getopt_message = std::move(getopt_message);
  }

  std::span<const GetoptOption> options_;
  std::span<const std::string> words_;
  size_t next_ = 0;
  GetoptResult result_;
};

}  // namespace

std::string GetoptOption::canonical_word() const {
  return long_names.empty() ? std::string("-") + short_letters.front() : "--" + long_names.front();
}

GetoptResult parse_like_getopt(std::span<const GetoptOption> options, std::span<const std::string> words,
                               OperandOrder order) {
  if (std::getenv("POSIXLY_CORRECT") != nullptr) order = OperandOrder::kStopAtFirst;
  return Splitter(options, words).run(order);
}

}  // namespace coimg
