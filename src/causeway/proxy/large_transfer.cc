// Finds and maps files that clients leave in a shared directory.
#include "causeway/proxy/large_transfer.h"

#include <sys/stat.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace causeway::proxy {

absl::StatusOr<std::shared_ptr<const SharedFile>> TakeLargeTransfer(const std::string& directory,
                                                                    uint64_t handle,
                                                                    int64_t size) {
  if (directory.empty()) {
    return absl::UnimplementedError(
        "this server offers no directory for large transfers; start it with one, or unset "
        "IFRT_PROXY_GRPC_LARGE_TRANSFER_OPTIMIZATION_DIRECTORY in the client");
  }
  // Clients cut the handle to 32 bits in the name.
  const std::string path = absl::StrCat(directory, "/lt_", static_cast<int32_t>(handle));
  struct stat info;
  if (::lstat(path.c_str(), &info) == 0 && info.st_size != size) {
    return absl::DataLossError(absl::StrCat("the transferred file ", path, " has ", info.st_size,
                                            " bytes, not ", size, "; send the array again"));
  }
  auto file = SharedFile::Open(path, 0, size, SharedFile::Name::kRemoveLast);
  if (absl::IsNotFound(file.status())) {
    return absl::NotFoundError(
        absl::StrCat(std::string(file.status().message()),
                     "; client and server must name the same directory on the same machine"));
  }
  return file;
}

}  // namespace causeway::proxy
