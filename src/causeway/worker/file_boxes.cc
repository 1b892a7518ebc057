// Runs of a box that are contiguous in the file are written one by one.
#include "causeway/worker/file_boxes.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "causeway/base/status_macros.h"
#include "causeway/model/host_copy.h"

namespace causeway::worker {
namespace {

absl::Status WriteAll(int fd, const char* bytes, int64_t size, int64_t offset) {
  while (size > 0) {
    const ssize_t n = ::pwrite(fd, bytes, static_cast<size_t>(size), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return absl::ErrnoToStatus(errno, "cannot write to the client's file");
    bytes += n;
    size -= n;
    offset += n;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteBox(const std::string& path, const FilePart& part,
                      const device::HostShard& shard) {
  const std::vector<int64_t>& dims = shard.dims;
  const int64_t width = shard.element_bytes;
  int64_t bytes = width;
  bool fits = dims.size() == part.dims.size() && dims.size() == part.start.size();
  for (size_t d = 0; fits && d < dims.size(); ++d) {
    fits = part.start[d] >= 0 && part.start[d] + dims[d] <= part.dims[d];
    bytes *= dims[d];
  }
  if (!fits || bytes != static_cast<int64_t>(shard.bytes->size())) {
    return absl::InvalidArgumentError("the shard does not lie inside the array to be read");
  }
  if (bytes == 0) return absl::OkStatus();
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  absl::Cleanup close = [fd] { ::close(fd); };
  struct stat info;
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_uid != ::getuid()) {
    return absl::PermissionDeniedError(absl::StrCat(path, " is no file of this user"));
  }
  const std::vector<int64_t> strides = model::DenseStrides(part.dims, width);
  // From dimension `inner` on, the box spans the array: one run holds all of that, and the rows of
  // the dimension before.
  size_t inner = dims.size();
  while (inner > 0 && dims[inner - 1] == part.dims[inner - 1]) --inner;
  int64_t run = width;
  for (size_t d = inner == 0 ? 0 : inner - 1; d < dims.size(); ++d) run *= dims[d];
  const size_t outer = inner == 0 ? 0 : inner - 1;
  std::vector<int64_t> index(outer, 0);
  const char* from = shard.bytes->data();
  for (int64_t done = 0; done < bytes; done += run) {
    int64_t at = part.offset;
    for (size_t d = 0; d < dims.size(); ++d) {
      at += (part.start[d] + (d < outer ? index[d] : 0)) * strides[d];
    }
    RETURN_IF_ERROR(WriteAll(fd, from + done, run, at));
    for (size_t d = outer; d-- > 0;) {
      if (++index[d] < dims[d]) break;
      index[d] = 0;
    }
  }
  return absl::OkStatus();
}

}  // namespace causeway::worker
