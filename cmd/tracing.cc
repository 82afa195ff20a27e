#include "cmd/tracing.h"

#include <fmt/format.h>
#include <spdlog/formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>

#include "cmd/json_writer.h"

namespace coimg {

namespace {

std::optional<spdlog::level::level_enum> find_level(const std::string& name) {
  if (name == "*" || name == "help") return spdlog::level::trace;
  const auto level = spdlog::level::from_str(name);
  // The library reads any unknown word as "off".
  if (level == spdlog::level::off && name != "off") return std::nullopt;
  return level;
}

class JsonLineFormatter final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    const auto since_epoch = std::chrono::duration_cast<std::chrono::microseconds>(message.time.time_since_epoch());
    const auto severity = spdlog::level::to_string_view(message.level);
    JsonValue line = JsonValue::object();
    line.add("type", "trace");
    line.add("severity", std::string_view(severity.data(), severity.size()));
    line.add("time-us", static_cast<uint64_t>(since_epoch.count()));
    line.add("message", std::string_view(message.payload.data(), message.payload.size()));
    const std::string text = line.render_line();
    out.append(text.data(), text.data() + text.size());
  }
  [[nodiscard]] std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<JsonLineFormatter>();
  }
};

}  // namespace

void trace_as_json() { spdlog::default_logger()->set_formatter(std::make_unique<JsonLineFormatter>()); }

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
