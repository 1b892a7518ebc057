// Writes the ready file.
#include "causeway/bin/ready_file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace causeway {

absl::Status WriteReadyFile(const std::string& path, const ReadyContent& content) {
  const nlohmann::json json = {{"pid", content.pid},
                               {"proxy_port", content.proxy_port},
                               {"server_port", content.server_port},
                               {"ops_port", content.ops_port}};
  const std::string temporary = absl::StrCat(path, ".", content.pid);
  {
    std::ofstream out(temporary);
    out << json.dump() << "\n";
    if (!out.flush()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "cannot write ", temporary, ": ", std::strerror(errno), "; check --ready-file"));
    }
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot write ", path, ": ", std::strerror(errno), "; check --ready-file"));
  }
  return absl::OkStatus();
}

}  // namespace causeway
