#include "cmd/option_declarer.h"

#include <CLI/CLI.hpp>
#include <utility>

namespace coimg {

void OptionDeclarer::flag(const char* names, bool& target, const char* help) {
  app_.add_flag_callback(names, [&target] { target = true; }, help);
}

void OptionDeclarer::action(const char* names, std::function<void()> act, const char* help) {
  app_.add_flag_callback(names, std::move(act), help)->trigger_on_parse();
}

void OptionDeclarer::text(const char* names, const char* value_name, std::string& target, const char* help) {
  app_.add_option(names, target, help)->take_last()->type_name(value_name);
}

void OptionDeclarer::text(const char* names, const char* value_name, std::optional<std::string>& target,
                          const char* help) {
  const auto store = [&target](const std::string& value) -> Result<void> {
    target = value;
    return {};
  };
  parsed(names, value_name, store, help);
}

void OptionDeclarer::parsed(const char* names, const char* value_name,
                            std::function<Result<void>(const std::string&)> parse, const char* help) {
  const auto take = [this, parse = std::move(parse)](const std::string& value) {
    if (first_error_.has_value() || answer_.has_value()) return;  // what stands behind is not looked at
    Result<void> result = parse(value);
    if (!result.ok()) first_error_ = std::move(result).error();
  };
  app_.add_option_function<std::string>(names, take, help)->take_last()->trigger_on_parse()->type_name(value_name);
}

void OptionDeclarer::describe_operands(const char* usage, const char* text) {
  app_.name(app_.get_name() + " " + usage);
  app_.footer(text);
}

}  // namespace coimg
