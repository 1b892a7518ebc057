// The file by which whoever started the head learns its ports.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace causeway {

struct ReadyContent {
  int pid = 0;
  int proxy_port = 0;
  int server_port = 0;
  int ops_port = 0;
};

// Writes JSON beside `path` and renames it there, so that no reader sees half of it.
absl::Status WriteReadyFile(const std::string& path, const ReadyContent& content);

}  // namespace causeway
