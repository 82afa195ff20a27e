#include "cmd/io/verb.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace coimg {

namespace {

std::vector<IoVerb> collect_verbs() {
  std::vector<IoVerb> all;
  for (auto part : {make_read_verbs(), make_write_verbs(), make_image_verbs(), make_open_verbs(),
                    make_breakpoint_verbs(), make_process_verbs()}) {
    std::ranges::move(part, std::back_inserter(all));
  }
  std::ranges::sort(all, {}, &IoVerb::name);
  return all;
}

}  // namespace

std::string describe_io_verb(const IoVerb& verb) {
  return fmt::format("{}{}{} -- {}", verb.name, verb.syntax.empty() ? "" : " ", verb.syntax, verb.summary);
}

std::span<const IoVerb> io_verbs() {
  static const std::vector<IoVerb> verbs = collect_verbs();
  return verbs;
}

const IoVerb* find_io_verb(std::string_view name) {
  const auto verbs = io_verbs();
  const auto found = std::ranges::find_if(
      verbs, [name](const IoVerb& verb) { return verb.name == name || (!verb.alias.empty() && verb.alias == name); });
  return found == verbs.end() ? nullptr : &*found;
}

IoStatus io_usage(IoSession& session, const IoVerb& verb, std::string_view mistake) {
  if (!mistake.empty()) session.console().note(fmt::format("{}: {}", verb.name, mistake));
  session.out(describe_io_verb(verb) + "\n");
  return IoStatus::kFailed;
}

}  // namespace coimg
