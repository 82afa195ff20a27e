// snapshot: lists, takes, applies and deletes internal snapshots.
#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "cmd/command.h"
#include "cmd/common.h"
#include "cmd/snapshot_table.h"

namespace coimg {

namespace {

/// Longer names are cut, as qemu-img does.
constexpr size_t kMaxNameBytes = 255;

class SnapshotCommand final : public Command {
 public:
  [[nodiscard]] std::string_view name() const override { return "snapshot"; }
  [[nodiscard]] std::string_view summary() const override { return "Manage the internal snapshots of an image"; }
  [[nodiscard]] std::string_view syntax() const override {
    return "[--object objectdef] [--image-opts] [-U] [-q] [-l | -a snapshot | -c snapshot | -d snapshot] filename";
  }
  void declare(OptionDeclarer& options) override;
  Result<void> prepare(const CommandContext& context, std::vector<std::string> operands) override;
  Result<int> run(CommandContext& context) coroutine_fn override;

 private:
  enum class Action { kNone, kList, kApply, kCreate, kDelete };
  Result<void> choose(Action action, const std::string& name);
  Result<int> act(const CommandContext& context, BlockNode& node) coroutine_fn;
  Result<void> apply(BlockNode& node) coroutine_fn;

  ImageOptions image_;
  bool quiet_ = false, list_ = false;
  Action action_ = Action::kNone;
  bool mixed_ = false;
  std::string name_;
  std::string operand_;
};

void SnapshotCommand::declare(OptionDeclarer& options) {
  image_.declare_image_opts(options);
  image_.declare_force_share(options);
  image_.declare_object(options);
  options.flag("-q", quiet_, "Print nothing but errors");
  options.flag("-l", list_, "List the snapshots");
  options.parsed(
      "-a", "SNAPSHOT", [this](const std::string& text) { return choose(Action::kApply, text); },
      "Make the disk what it was then; an id, or else a name");
  options.parsed(
      "-c", "NAME", [this](const std::string& text) { return choose(Action::kCreate, text); }, "Take a snapshot");
  options.parsed(
      "-d", "NAME", [this](const std::string& text) { return choose(Action::kDelete, text); }, "Delete a snapshot");
  options.describe_operands("FILE", "Snapshots are kept inside of qcow2 images.");
}

Result<void> SnapshotCommand::choose(Action action, const std::string& name) {
  mixed_ = mixed_ || action_ != Action::kNone;
  action_ = action;
  name_ = name.substr(0, kMaxNameBytes);
  return {};
}

Result<void> SnapshotCommand::prepare(const CommandContext& context, std::vector<std::string> operands) {
  if (list_) COIMG_TRY(choose(Action::kList, ""));
  if (mixed_) return context.program.usage_error("Cannot mix '-l', '-a', '-c', '-d'");
  operand_ = COIMG_TRY(take_one_operand(context, std::move(operands)));
  return {};
}

Result<int> SnapshotCommand::run(CommandContext& context) {
  const OpenFlags flags{.writable = action_ != Action::kList,
                        .resizable = true,
                        .force_share = image_.force_share,
                        .discard_unmap = true};
  const auto node = COIMG_TRY(open_operand(context, operand_, std::nullopt, image_.image_opts, flags));
  return close_after(*node, act(context, *node));
}

Result<int> SnapshotCommand::act(const CommandContext& context, BlockNode& node) {
  switch (action_) {
    case Action::kNone:
      return 0;
    case Action::kList: {
      const ImageInfo info = COIMG_TRY(node.co_info());
      if (!info.snapshots.empty()) {
        context.console.out("Snapshot list:\n" + render_snapshot_table(info.snapshots));
      }
      return 0;
    }
    case Action::kCreate: {
      const Result<void> created = node.co_create_snapshot(name_);
      if (created.ok()) return 0;
      const int errnum = created.error().errnum();
      return Error(errnum,
                   fmt::format("Could not create snapshot '{}': {} ({})", name_, -errnum, std::strerror(errnum)));
    }
    case Action::kApply:
      COIMG_TRY(apply(node).with_context(fmt::format("Could not apply snapshot '{}'", name_)));
      return 0;
    case Action::kDelete: {
      Result<void> deleted = node.co_delete_snapshot({.id = {}, .name = name_});
      if (deleted.ok()) return 0;
      Error error = std::move(deleted).error();
      if (error.errnum() == ENOENT || error.errnum() == ENOTSUP) error = Error(ENOENT, "snapshot not found");
      return std::move(error).with_context(fmt::format("Could not delete snapshot '{}'", name_));
    }
  }
  __builtin_unreachable();
}

/// By id, or else by name.
Result<void> SnapshotCommand::apply(BlockNode& node) {
  Result<void> applied = node.co_apply_snapshot({.id = name_, .name = {}});
  if (!applied.ok() && applied.error().errnum() == ENOENT) {
    applied = node.co_apply_snapshot({.id = {}, .name = name_});
  }
  if (applied.ok() || applied.error().errnum() != ENOENT) return applied;
  return std::move(applied).with_context("Failed to load snapshot");
}

}  // namespace

std::unique_ptr<Command> make_snapshot_command() { return std::make_unique<SnapshotCommand>(); }

}  // namespace coimg
