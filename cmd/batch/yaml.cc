// From the events of libyaml to the values that JSON has.
#include <fmt/format.h>
#include <yaml.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <new>
#include <string>
#include <utility>

#include "cmd/batch/job_text.h"

namespace coimg {

namespace {

using nlohmann::json;

constexpr unsigned kMaxDepth = 8;        ///< a job has two levels
constexpr size_t kMaxNodes = 2'000'000;  ///< aliases can make a short text very long

Error at_line(size_t line, std::string_view problem) { return {EINVAL, fmt::format("line {}: {}", line, problem)}; }

/// An event of the parser, which owns memory.
class Event {
 public:
  Event() = default;
  ~Event() { yaml_event_delete(&event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  [[nodiscard]] bool parse(yaml_parser_t& parser) { return yaml_parser_parse(&parser, &event_) == 1; }
  [[nodiscard]] yaml_event_type_t type() const { return event_.type; }
  [[nodiscard]] size_t line() const { return event_.start_mark.line + 1; }
  [[nodiscard]] std::string scalar() const {
    return {reinterpret_cast<const char*>(event_.data.scalar.value), event_.data.scalar.length};
  }
  [[nodiscard]] std::string alias() const { return text(event_.data.alias.anchor); }
  /// The name that the node is given for aliases; empty without one.
  [[nodiscard]] std::string anchor() const {
    switch (event_.type) {
      case YAML_SCALAR_EVENT:
        return text(event_.data.scalar.anchor);
      case YAML_SEQUENCE_START_EVENT:
        return text(event_.data.sequence_start.anchor);
      case YAML_MAPPING_START_EVENT:
        return text(event_.data.mapping_start.anchor);
      default:
        return {};
    }
  }

 private:
  static std::string text(const yaml_char_t* bytes) {
    return bytes != nullptr ? reinterpret_cast<const char*>(bytes) : std::string();
  }
  yaml_event_t event_{};
};

class YamlReader {
 public:
  explicit YamlReader(std::string_view text) {
    if (yaml_parser_initialize(&parser_) != 1) throw std::bad_alloc();
    yaml_parser_set_input_string(&parser_, reinterpret_cast<const unsigned char*>(text.data()), text.size());
  }
  ~YamlReader() { yaml_parser_delete(&parser_); }
  YamlReader(const YamlReader&) = delete;
  YamlReader& operator=(const YamlReader&) = delete;

  Result<std::vector<JobText>> read() {
    std::vector<JobText> jobs;
    COIMG_TRY(expect(YAML_STREAM_START_EVENT, ""));
    Event event;
    COIMG_TRY(next(event));
    if (event.type() == YAML_STREAM_END_EVENT) return jobs;
    COIMG_TRY(expect(YAML_SEQUENCE_START_EVENT, "this is neither a JSON object a line nor a list of jobs in YAML"));
    for (;;) {
      Event item;
      COIMG_TRY(next(item));
      if (item.type() == YAML_SEQUENCE_END_EVENT) break;
      const size_t line = item.line();
      jobs.push_back({line, COIMG_TRY(node(item, 0)).value});
    }
    COIMG_TRY(expect(YAML_DOCUMENT_END_EVENT, ""));
    COIMG_TRY(expect(YAML_STREAM_END_EVENT, "there is more than one document"));
    return jobs;
  }

 private:
  struct Node {
    json value;
    size_t count = 1;     ///< of the values that it is made of
    unsigned height = 0;  ///< how deep they are nested
  };

  Result<void> next(Event& event) {
    if (event.parse(parser_)) return {};
    return at_line(parser_.problem_mark.line + 1,
                   fmt::format("this is no YAML: {}", parser_.problem != nullptr ? parser_.problem : "unreadable"));
  }

  Result<void> expect(yaml_event_type_t type, std::string_view otherwise) {
    Event event;
    COIMG_TRY(next(event));
    if (event.type() != type) return at_line(event.line(), otherwise);
    return {};
  }

  /// The node that the event starts.
  Result<Node> node(const Event& event, unsigned depth) {
    if (depth > kMaxDepth) return too_deep(event);
    Node found;
    switch (event.type()) {
      case YAML_SCALAR_EVENT:
        found.value = event.scalar();
        break;
      case YAML_SEQUENCE_START_EVENT:
        found = COIMG_TRY(sequence(depth));
        break;
      case YAML_MAPPING_START_EVENT:
        found = COIMG_TRY(mapping(depth));
        break;
      default: {  // an alias: nothing else can stand here
        const auto known = anchors_.find(event.alias());
        if (known == anchors_.end()) return at_line(event.line(), fmt::format("no anchor '{}'", event.alias()));
        found = known->second;
        if (depth + found.height > kMaxDepth) return too_deep(event);
      }
    }
    const std::string anchor = event.anchor();
    if (!anchor.empty()) anchors_[anchor] = found;
    // Copies count as what they were copied from.
    total_ += event.type() == YAML_ALIAS_EVENT || !anchor.empty() ? found.count : 1;
    if (total_ > kMaxNodes) return at_line(event.line(), fmt::format("there are more than {} values", kMaxNodes));
    return found;
  }

  static Error too_deep(const Event& event) { return at_line(event.line(), "lists and objects are nested too deeply"); }

  Result<Node> sequence(unsigned depth) {
    Node list{.value = json::array()};
    for (;;) {
      Event event;
      COIMG_TRY(next(event));
      if (event.type() == YAML_SEQUENCE_END_EVENT) return list;
      Node element = COIMG_TRY(node(event, depth + 1));
      list.count += element.count;
      list.height = std::max(list.height, element.height + 1);
      list.value.push_back(std::move(element.value));
    }
  }

  Result<Node> mapping(unsigned depth) {
    Node object{.value = json::object()};
    for (;;) {
      Event key_event;
      COIMG_TRY(next(key_event));
      if (key_event.type() == YAML_MAPPING_END_EVENT) return object;
      if (key_event.type() != YAML_SCALAR_EVENT) return at_line(key_event.line(), "a key has to be a word");
      const std::string key = key_event.scalar();
      if (object.value.contains(key)) return at_line(key_event.line(), fmt::format("'{}' is given twice", key));
      Event event;
      COIMG_TRY(next(event));
      Node element = COIMG_TRY(node(event, depth + 1));
      object.count += element.count;
      object.height = std::max(object.height, element.height + 1);
      object.value[key] = std::move(element.value);
    }
  }

  yaml_parser_t parser_{};
  std::map<std::string, Node> anchors_;
  size_t total_ = 0;
};

}  // namespace

Result<std::vector<JobText>> read_yaml(std::string_view text) { return YamlReader(text).read(); }

}  // namespace coimg
