#include "block/warnings.h"

#include <cstdio>
#include <utility>

namespace coimg {

namespace {

WarningSink& warning_sink() {
  static WarningSink sink;
  return sink;
}

}  // namespace

void set_warning_sink(WarningSink sink) { warning_sink() = std::move(sink); }

void emit_warning(const std::string& lines, std::string_view file) {
  if (warning_sink()) {
    warning_sink()(file, lines);
  } else {
    std::fwrite(lines.data(), 1, lines.size(), stderr);
  }
}

}  // namespace coimg
