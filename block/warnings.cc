// Lines for the user that are not errors.
#include <cstdio>

#include "block/open.h"

namespace coimg {

namespace {

void write_to_stderr(const std::string& lines) { std::fwrite(lines.data(), 1, lines.size(), stderr); }

void (*warning_sink)(const std::string& lines) = write_to_stderr;

}  // namespace

void set_warning_sink(void (*sink)(const std::string& lines)) { warning_sink = sink ? sink : write_to_stderr; }

void emit_warning(const std::string& lines) { warning_sink(lines); }

}  // namespace coimg
