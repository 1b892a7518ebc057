// What the operating system says of this process.
#pragma once

#include <cstdint>

namespace causeway::worker {

struct ProcessStats {
  int64_t resident_bytes = 0;
  int open_files = 0;
  int threads = 0;
};

ProcessStats ReadProcessStats();

}  // namespace causeway::worker
