#include "cmd/image_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <type_traits>

#include "cmd/size_format.h"
#include "cmd/snapshot_table.h"

namespace coimg {

namespace {

void append_tree(std::string& out, const InfoTree& tree, unsigned level);

/// "name: value" lines of one field, indented by 4 blanks a level.
void append_field(std::string& out, std::string_view name, const InfoField& field, unsigned level) {
  const std::string indent(size_t{4} * level, ' ');
  std::visit(
      [&](const auto& value) {
        using T = std::decay_t<decltype(value)>;
        if constexpr (std::is_same_v<T, std::vector<InfoTree>>) {
          out += fmt::format("{}{}:\n", indent, name);
          for (size_t i = 0; i < value.size(); ++i) {
            out += fmt::format("{}    [{}]:\n", indent, i);
            append_tree(out, value[i], level + 2);
          }
        } else if constexpr (std::is_same_v<T, std::shared_ptr<const InfoTree>>) {
          out += fmt::format("{}{}:\n", indent, name);
          append_tree(out, *value, level + 1);
        } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
          out += fmt::format("{}{}:\n", indent, name);
          for (size_t i = 0; i < value.size(); ++i) out += fmt::format("{}    [{}]: {}\n", indent, i, value[i]);
        } else {
          out += fmt::format("{}{}: {}\n", indent, name, value);
        }
      },
      field.value);
}

void append_tree(std::string& out, const InfoTree& tree, unsigned level) {
  for (const InfoField& field : tree.fields) {
    std::string name = field.key;
    std::replace(name.begin(), name.end(), '-', ' ');
    append_field(out, name, field, level);
  }
}

JsonValue tree_to_json(const InfoTree& tree) {
  JsonValue object = JsonValue::object();
  for (const InfoField& field : tree.fields) {
    object.add(field.key, std::visit(
                              [](const auto& value) -> JsonValue {
                                using T = std::decay_t<decltype(value)>;
                                if constexpr (std::is_same_v<T, std::vector<InfoTree>>) {
                                  JsonValue list = JsonValue::array();
                                  for (const InfoTree& element : value) list.append(tree_to_json(element));
                                  return list;
                                } else if constexpr (std::is_same_v<T, std::shared_ptr<const InfoTree>>) {
                                  return tree_to_json(*value);
                                } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
                                  JsonValue list = JsonValue::array();
                                  for (const std::string& element : value) list.append(element);
                                  return list;
                                } else {
                                  return value;
                                }
                              },
                              field.value));
  }
  return object;
}

JsonValue snapshot_to_json(const SnapshotInfo& snapshot) {
  constexpr uint64_t kNsPerSecond = 1'000'000'000;
  JsonValue object = JsonValue::object();
  if (snapshot.icount.has_value()) object.add("icount", *snapshot.icount);
  object.add("vm-clock-nsec", snapshot.vm_clock_ns % kNsPerSecond);
  object.add("name", snapshot.name);
  object.add("date-sec", snapshot.date_sec);
  object.add("date-nsec", snapshot.date_nsec);
  object.add("vm-clock-sec", snapshot.vm_clock_ns / kNsPerSecond);
  object.add("id", snapshot.id);
  object.add("vm-state-size", snapshot.vm_state_bytes);
  return object;
}

std::string backing_lines(const ImageReport& report) {
  const std::string& stored = report.info.backing_filename;
  if (stored.empty()) return "";
  std::string text = fmt::format("backing file: {}", stored);
  if (!report.resolved_backing.has_value()) {
    text += " (cannot determine actual path)";
  } else if (*report.resolved_backing != stored) {
    text += fmt::format(" (actual path: {})", *report.resolved_backing);
  }
  text += '\n';
  if (!report.info.backing_format.empty()) {
    text += fmt::format("backing file format: {}\n", report.info.backing_format);
  }
  return text;
}

}  // namespace

std::string render_human(const ImageReport& report) {
  const ImageInfo& info = report.info;
  std::string text =
      fmt::format("image: {}\nfile format: {}\nvirtual size: {} ({} bytes)\ndisk size: {}\n", report.filename,
                  report.format, render_size(report.virtual_size), report.virtual_size,
                  report.allocated_size.has_value() ? render_size(*report.allocated_size) : "unavailable");
  if (info.encrypted) text += "encrypted: yes\n";
  if (info.cluster_size.has_value()) text += fmt::format("cluster_size: {}\n", *info.cluster_size);
  if (info.dirty) text += "cleanly shut down: no\n";
  text += backing_lines(report);
  if (!info.snapshots.empty()) text += "Snapshot list:\n" + render_snapshot_table(info.snapshots);
  if (info.format_specific.has_value()) text += render_format_specific(*info.format_specific);
  return text;
}

std::string render_format_specific(const InfoTree& tree) {
  std::string text = "Format specific information:\n";
  append_tree(text, tree, 1);
  return text;
}

JsonValue render_json(const ImageReport& report) {
  const ImageInfo& info = report.info;
  JsonValue object = JsonValue::object();
  if (!info.backing_format.empty()) object.add("backing-filename-format", info.backing_format);
  if (!info.snapshots.empty()) {
    JsonValue snapshots = JsonValue::array();
    for (const SnapshotInfo& snapshot : info.snapshots) snapshots.append(snapshot_to_json(snapshot));
    object.add("snapshots", std::move(snapshots));
  }
  object.add("virtual-size", report.virtual_size);
  object.add("filename", report.filename);
  if (info.cluster_size.has_value()) object.add("cluster-size", *info.cluster_size);
  object.add("format", report.format);
  if (report.allocated_size.has_value()) object.add("actual-size", *report.allocated_size);
  if (info.format_specific.has_value()) {
    JsonValue specific = JsonValue::object();
    specific.add("type", report.format);
    specific.add("data", tree_to_json(*info.format_specific));
    object.add("format-specific", std::move(specific));
  }
  const bool has_backing = !info.backing_filename.empty();
  if (has_backing && report.resolved_backing.has_value()) {
    object.add("full-backing-filename", *report.resolved_backing);
  }
  if (info.encrypted) object.add("encrypted", true);
  if (has_backing) object.add("backing-filename", info.backing_filename);
  object.add("dirty-flag", info.dirty);
  return object;
}

}  // namespace coimg
