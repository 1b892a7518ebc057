// Reads /proc/self.
#include "causeway/worker/process_stats.h"

#include <dirent.h>
#include <unistd.h>

#include <fstream>

namespace causeway::worker {
namespace {

int CountEntries(const char* path) {
  DIR* directory = ::opendir(path);
  if (directory == nullptr) return 0;
  int count = 0;
  while (const dirent* entry = ::readdir(directory)) {
    if (entry->d_name[0] != '.') ++count;
  }
  ::closedir(directory);
  return count;
}

}  // namespace

ProcessStats ReadProcessStats() {
  ProcessStats stats;
  int64_t total_pages = 0, resident_pages = 0;
  std::ifstream("/proc/self/statm") >> total_pages >> resident_pages;
  stats.resident_bytes = resident_pages * ::sysconf(_SC_PAGESIZE);
  stats.open_files = CountEntries("/proc/self/fd");
  stats.threads = CountEntries("/proc/self/task");
  return stats;
}

}  // namespace causeway::worker
