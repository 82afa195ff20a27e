// What a program did to the files of a directory, as recorder.cc has written it down.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "tests/crash/suite.h"
#include "tests/support/write_log.h"

namespace coimg::crash {

/// Runs a command of coimg in `directory`; what it writes and flushes there goes to the file `log`.
Outcome run_recorded(const std::string& directory, std::vector<std::string> command, const std::string& log);

/// The log of each file by its name; that of the directory itself, ".", has its flushes. `before` has the files'
/// content when the program started; the others begin empty.
std::map<std::string, WriteLog> read_recording(const std::string& path,
                                               const std::map<std::string, std::vector<std::byte>>& before);

}  // namespace coimg::crash
