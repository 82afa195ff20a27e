// Names of images: their parts, and how they are shown.
#include "block/image_name.h"

#include <algorithm>
#include <iterator>

#include <nlohmann/json.hpp>

#include "block/open.h"

namespace coimg {

namespace {

/// qemu-img's order of the keys in json:{...} names; scripts compare these names as text.
constexpr std::string_view kKeyOrder[] = {"offset", "driver", "path", "filename", "size",
                                          "export", "server", "type", "file"};

size_t rank(std::string_view key) {
  return static_cast<size_t>(std::find(std::begin(kKeyOrder), std::end(kKeyOrder), key) - std::begin(kKeyOrder));
}

nlohmann::json scalar(const OptionValue& value) {
  return std::visit([](const auto& held) { return nlohmann::json(held); }, value);
}

}  // namespace

NodeDescription::Member& NodeDescription::member(std::string_view key) {
  const auto found = std::find_if(members_.begin(), members_.end(), [&](const Member& m) { return m.key == key; });
  if (found != members_.end()) return *found;
  return members_.emplace_back(Member{std::string(key), {}, {}});
}

void NodeDescription::add(std::string_view key, OptionValue value) {
  const size_t dot = key.find('.');
  if (dot == std::string_view::npos) {
    member(key).value = std::move(value);
    return;
  }
  Member& parent = member(key.substr(0, dot));
  if (parent.child.empty()) parent.child.emplace_back();
  parent.child.front().add(key.substr(dot + 1), std::move(value));
}

void NodeDescription::add_child(std::string_view key, NodeDescription child) {
  Member& parent = member(key);
  parent.child.clear();
  parent.child.push_back(std::move(child));
}

std::string NodeDescription::to_json() const {
  std::vector<const Member*> sorted;
  for (const Member& each : members_) sorted.push_back(&each);
  // Unknown keys stay in the order in which they came: the members are in one array.
  std::sort(sorted.begin(), sorted.end(),
            [](const Member* a, const Member* b) { return std::pair(rank(a->key), a) < std::pair(rank(b->key), b); });
  // Names are bytes; what is not UTF-8 is replaced rather than refused.
  const auto text = [](const nlohmann::json& value) {
    return value.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
  };
  std::string json = "{";
  for (const Member* each : sorted) {
    if (json.size() > 1) json += ", ";
    json += text(each->key) + ": " + (each->child.empty() ? text(scalar(each->value)) : each->child.front().to_json());
  }
  return json + "}";
}

ProtocolName split_protocol(std::string_view name) {
  const size_t end = name.find_first_of(":/");
  if (end == std::string_view::npos || name[end] == '/') return {"", std::string(name)};
  return {std::string(name.substr(0, end)), std::string(name.substr(end + 1))};
}

std::string resolve_backing_name(std::string_view overlay_filename, std::string_view backing) {
  if (backing.starts_with('/') || !split_protocol(backing).protocol.empty()) return std::string(backing);

  constexpr std::string_view kFilePrefix = "file:";
  const bool is_path = overlay_filename.starts_with(kFilePrefix) || split_protocol(overlay_filename).protocol.empty();
  if (overlay_filename.starts_with(kFilePrefix)) overlay_filename.remove_prefix(kFilePrefix.size());
  const size_t directory_end = overlay_filename.find_last_of(is_path ? "/" : "/:");
  std::string resolved(overlay_filename.substr(0, directory_end == std::string_view::npos ? 0 : directory_end + 1));
  resolved += backing;
  // A directory with a colon must not turn into a protocol.
  if (is_path && !split_protocol(resolved).protocol.empty()) resolved.insert(0, "./");
  return resolved;
}

}  // namespace coimg
