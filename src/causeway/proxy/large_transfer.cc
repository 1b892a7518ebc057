// Maps and unlinks files that clients leave in a shared directory.
#include "causeway/proxy/large_transfer.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace causeway::proxy {

absl::StatusOr<absl::Cord> TakeLargeTransfer(const std::string& directory, uint64_t handle,
                                             int64_t size) {
  if (directory.empty()) {
    return absl::UnimplementedError(
        "this server offers no directory for large transfers; start it with one, or unset "
        "IFRT_PROXY_GRPC_LARGE_TRANSFER_OPTIMIZATION_DIRECTORY in the client");
  }
  // Clients cut the handle to 32 bits in the name.
  const std::string path = absl::StrCat(directory, "/lt_", static_cast<int32_t>(handle));
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) {
    return absl::NotFoundError(absl::StrCat(
        "cannot open the transferred file ", path, ": ", std::strerror(errno),
        "; client and server must name the same directory on the same machine"));
  }
  absl::Cleanup close = [fd] { ::close(fd); };
  ::unlink(path.c_str());
  struct stat info;
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size != size) {
    return absl::DataLossError(absl::StrCat("the transferred file ", path, " is not a file of ",
                                            size, " bytes; send the array again"));
  }
  if (size == 0) return absl::Cord();
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot map the transferred file ", path, ": ", std::strerror(errno),
                     "; send smaller arrays"));
  }
  return absl::MakeCordFromExternal(
      absl::string_view(static_cast<const char*>(data), static_cast<size_t>(size)),
      [data, size] { ::munmap(data, size); });
}

}  // namespace causeway::proxy
