// Files on a real disk, by POSIX calls.
#include "causeway/base/file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

namespace causeway {
namespace {

absl::Status Failed(const char* what, const std::string& path) {
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot ", what, " ", path));
}

}  // namespace

absl::Status RealFileSystem::MakeDirectories(const std::string& path) {
  for (size_t end = 1; end != std::string::npos;) {
    end = path.find('/', end);
    const std::string part = path.substr(0, end);
    if (end != std::string::npos) ++end;
    if (::mkdir(part.c_str(), 0700) != 0 && errno != EEXIST) {
      // A parent on a read-only or foreign file system may exist all the same.
      struct stat info;
      const int saved = errno;
      if (::stat(part.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
        errno = saved;
        return Failed("make the directory", part);
      }
    }
  }
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) return Failed("make the directory", path);
  if (!S_ISDIR(info.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is a file, not a directory"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<FileInfo>> RealFileSystem::List(const std::string& directory) {
  DIR* stream = ::opendir(directory.c_str());
  if (stream == nullptr) return Failed("list the directory", directory);
  absl::Cleanup close = [stream] { ::closedir(stream); };
  std::vector<FileInfo> files;
  while (const dirent* entry = ::readdir(stream)) {
    struct stat info;
    if (::fstatat(::dirfd(stream), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (!S_ISREG(info.st_mode)) continue;
    files.push_back({entry->d_name, info.st_size, absl::TimeFromTimespec(info.st_mtim)});
  }
  return files;
}

absl::StatusOr<std::string> RealFileSystem::Read(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Failed("open", path);
  absl::Cleanup close = [fd] { ::close(fd); };
  struct stat info;
  if (::fstat(fd, &info) != 0) return Failed("look at", path);
  std::string bytes(static_cast<size_t>(info.st_size), '\0');
  size_t filled = 0;
  while (filled < bytes.size()) {
    const ssize_t n = ::read(fd, bytes.data() + filled, bytes.size() - filled);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Failed("read", path);
    if (n == 0) break;
    filled += static_cast<size_t>(n);
  }
  bytes.resize(filled);
  return bytes;
}

absl::Status RealFileSystem::WriteAtomically(const std::string& path, absl::string_view bytes) {
  static std::atomic<uint64_t> counter{0};
  const std::string partial = absl::StrCat(path, kPartialMark, ::getpid(), ".", counter++);
  const int fd = ::open(partial.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return Failed("create", partial);
  absl::Status status;
  while (!bytes.empty() && status.ok()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      status = Failed("write", partial);
    } else {
      bytes.remove_prefix(static_cast<size_t>(n));
    }
  }
  if (::close(fd) != 0 && status.ok()) status = Failed("write", partial);
  if (status.ok() && ::rename(partial.c_str(), path.c_str()) != 0) status = Failed("put", path);
  if (!status.ok()) ::unlink(partial.c_str());
  return status;
}

absl::Status RealFileSystem::Remove(const std::string& path) {
  return ::unlink(path.c_str()) == 0 ? absl::OkStatus() : Failed("remove", path);
}

absl::Status RealFileSystem::Touch(const std::string& path) {
  return ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0) == 0 ? absl::OkStatus()
                                                               : Failed("touch", path);
}

}  // namespace causeway
