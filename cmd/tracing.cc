#include "cmd/tracing.h"

#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <memory>
#include <optional>
#include <string>

namespace coimg {

namespace {

std::optional<spdlog::level::level_enum> find_level(const std::string& name) {
  if (name == "*" || name == "help") return spdlog::level::trace;
  const auto level = spdlog::level::from_str(name);
  // The library reads any unknown word as "off".
  if (level == spdlog::level::off && name != "off") return std::nullopt;
  return level;
}

}  // namespace

void init_tracing() {
  auto logger = std::make_shared<spdlog::logger>("coimg", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("%H:%M:%S.%f %l %v");
  logger->set_level(spdlog::level::warn);
  spdlog::set_default_logger(std::move(logger));
  const char* const wanted = std::getenv("COIMG_LOG");
  if (wanted == nullptr) return;
  if (const auto level = find_level(wanted)) spdlog::set_level(*level);
}

void enable_tracing(std::string_view spec, Console& console) {
  std::string_view pattern = spec.substr(0, spec.find(','));
  constexpr std::string_view kEnable = "enable=";
  if (pattern.starts_with(kEnable)) pattern.remove_prefix(kEnable.size());
  if (pattern.empty() || pattern.find('=') != std::string_view::npos) return;  // events= and file= have nothing to name
  const auto level = find_level(std::string(pattern));
  if (level.has_value()) {
    spdlog::set_level(*level);
  } else {
    console.warning(fmt::format("trace event '{}' does not exist", pattern));
  }
}

}  // namespace coimg
