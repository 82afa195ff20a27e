// The list of commands.
#include "cmd/command.h"

namespace coimg {

std::vector<std::unique_ptr<Command>> make_commands() {
  std::vector<std::unique_ptr<Command>> commands;
  commands.push_back(make_amend_command());
  commands.push_back(make_batch_command());
  commands.push_back(make_bench_command());
  commands.push_back(make_bitmap_command());
  commands.push_back(make_check_command());
  commands.push_back(make_checksum_command());
  commands.push_back(make_commit_command());
  commands.push_back(make_compare_command());
  commands.push_back(make_convert_command());
  commands.push_back(make_create_command());
  commands.push_back(make_dd_command());
  commands.push_back(make_info_command());
  commands.push_back(make_io_command());
  commands.push_back(make_map_command());
  commands.push_back(make_measure_command());
  commands.push_back(make_snapshot_command());
  commands.push_back(make_rebase_command());
  commands.push_back(make_resize_command());
  return commands;
}

}  // namespace coimg
