// Splitting of command lines by the rules of GNU getopt_long, which scripts written for qemu-img rely on.
//
// CLI11 binds values to options but splits words by rules of its own: it knows no unique prefixes of long options,
// takes "-f=qcow2" apart differently and wants operands declared. So the words are first brought into a form that both
// understand alike: one word an option, its value in the next word, operands apart.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace coimg {

struct GetoptOption {
  std::string short_letters;            ///< each one is a name
  std::vector<std::string> long_names;  ///< without dashes
  bool takes_value = false;
  bool ends_parsing = false;  ///< --help and its like: what follows is not looked at

  /// The name in the result: "--long" if there is one, else "-s".
  [[nodiscard]] std::string canonical_word() const;
};

enum class OperandOrder {
  kAnywhere,     ///< options may follow operands, unless POSIXLY_CORRECT is in the environment
  kStopAtFirst,  ///< everything from the first operand on is an operand
};

struct GetoptResult {
  enum class Stop { kEnd, kEarly, kUnrecognized, kMissingValue };

  std::vector<std::string> words;  ///< canonical option words, each followed by its value if it takes one
  std::vector<std::string> operands;
  Stop stop = Stop::kEnd;      ///< kEarly: the last of `words` ends parsing
  std::string bad_word;        ///< what kUnrecognized and kMissingValue complain about, as given
  std::string getopt_message;  ///< the same in getopt's own words
};

/// Splits `words` (without the program's or command's own name). Everything before a mistake is in the result.
GetoptResult parse_like_getopt(std::span<const GetoptOption> options, std::span<const std::string> words,
                               OperandOrder order);

}  // namespace coimg
