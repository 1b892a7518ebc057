// Mapped files, and the folders that outlive nobody for long.
#include "causeway/base/shared_memory.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "causeway/base/process_exit.h"
#include "causeway/base/random.h"
#include "causeway/base/status_macros.h"

namespace causeway {
namespace {

absl::Status Failed(const char* what, const std::string& path) {
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot ", what, " ", path));
}

std::string UserFolder(const std::string& root) {
  return absl::StrCat(root, "/causeway-", ::getuid());
}

// "PID-START-RANDOM" of a process that lives.
bool OwnerLives(const std::string& name) {
  const std::vector<std::string> parts = absl::StrSplit(name, '-');
  int pid = 0;
  uint64_t start = 0;
  if (parts.size() != 3 || !absl::SimpleAtoi(parts[0], &pid) ||
      !absl::SimpleAtoi(parts[1], &start)) {
    return true;  // not ours to judge
  }
  return ProcessStart(pid) == start;
}

void RemoveFolder(const std::string& path) {
  if (DIR* stream = ::opendir(path.c_str())) {
    while (const dirent* entry = ::readdir(stream)) {
      (void)::unlinkat(::dirfd(stream), entry->d_name, 0);
    }
    ::closedir(stream);
  }
  (void)::rmdir(path.c_str());
}

bool IsPrivateFolder(const std::string& path) {
  struct stat info;
  return ::lstat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode) &&
         info.st_uid == ::getuid() && (info.st_mode & 077) == 0;
}

}  // namespace

absl::StatusOr<std::shared_ptr<SharedFile>> SharedFile::Create(const std::string& path,
                                                               int64_t bytes,
                                                               absl::string_view first) {
  std::shared_ptr<SharedFile> file(new SharedFile);
  file->fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (file->fd_ < 0) return Failed("create", path);
  file->path_ = path;
  // Written, not mapped and filled: that costs less than half, as no page is cleared first.
  for (int64_t done = 0; done < static_cast<int64_t>(first.size());) {
    const ssize_t n = ::pwrite(file->fd_, first.data() + done, first.size() - done, done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Failed("write to", path);
    done += n;
  }
  // Reserved now: a write to a page that is not there would end the process.
  const int error = ::posix_fallocate(file->fd_, 0, bytes);
  if (error != 0) {
    return absl::ErrnoToStatus(error, absl::StrCat("no room for ", bytes, " bytes in ", path));
  }
  file->mapped_ = static_cast<size_t>(bytes);
  file->mapping_ = ::mmap(nullptr, file->mapped_, PROT_READ | PROT_WRITE, MAP_SHARED, file->fd_, 0);
  if (file->mapping_ == MAP_FAILED) {
    file->mapping_ = nullptr;
    return Failed("map", path);
  }
  file->data_ = static_cast<char*>(file->mapping_);
  file->size_ = bytes;
  return file;
}

absl::StatusOr<std::shared_ptr<SharedFile>> SharedFile::Open(const std::string& path,
                                                             int64_t offset, int64_t bytes,
                                                             Name name) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return Failed("open", path);
  absl::Cleanup close = [fd] { ::close(fd); };
  struct stat info;
  if (::fstat(fd, &info) != 0) return Failed("look at", path);
  if (info.st_uid != ::getuid()) {
    return absl::PermissionDeniedError(absl::StrCat(path, " belongs to another user"));
  }
  if (!S_ISREG(info.st_mode) || offset < 0 || bytes < 0 || info.st_size - offset < bytes) {
    return absl::DataLossError(absl::StrCat(path, " is not a file of ", bytes, " bytes from byte ",
                                            offset, " on: it has ", info.st_size));
  }
  std::shared_ptr<SharedFile> file(new SharedFile);
  if (bytes > 0) {
    static const int64_t page = ::sysconf(_SC_PAGESIZE);
    const int64_t skip = offset % page;
    file->mapped_ = static_cast<size_t>(skip + bytes);
    file->mapping_ = ::mmap(nullptr, file->mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd,
                            offset - skip);
    if (file->mapping_ == MAP_FAILED) {
      file->mapping_ = nullptr;
      return Failed("map", path);
    }
    file->data_ = static_cast<char*>(file->mapping_) + skip;
  }
  file->size_ = bytes;
  if (name == Name::kRemoveNow) {
    (void)::unlink(path.c_str());
  } else {
    file->path_ = path;
  }
  return file;
}

SharedFile::~SharedFile() {
  if (mapping_ != nullptr) ::munmap(mapping_, mapped_);
  if (fd_ >= 0) ::close(fd_);
  if (!path_.empty()) (void)::unlink(path_.c_str());
}

absl::Status SharedFile::Link(const std::string& path) const {
  return ::link(path_.c_str(), path.c_str()) == 0 ? absl::OkStatus() : Failed("link", path);
}

bool SharedFile::has_other_names() const {
  struct stat info;
  return fd_ >= 0 && ::fstat(fd_, &info) == 0 && info.st_nlink > 1;
}

absl::StatusOr<std::unique_ptr<SharedFolder>> SharedFolder::Create(const std::string& root) {
  const char* const wanted = std::getenv("CAUSEWAY_SHARED_MEMORY");
  if (wanted != nullptr && absl::string_view(wanted) == "off") {
    return absl::UnavailableError("CAUSEWAY_SHARED_MEMORY=off switches shared memory off");
  }
  const std::string parent = UserFolder(root);
  if (::mkdir(parent.c_str(), 0700) != 0 && errno != EEXIST) {
    return absl::UnavailableError(std::string(Failed("make", parent).message()));
  }
  if (!IsPrivateFolder(parent)) {
    return absl::UnavailableError(
        absl::StrCat(parent, " is not a folder of this user alone; remove it"));
  }
  (void)Sweep(root);
  SystemRandom random;
  const int pid = ::getpid();
  const std::string path =
      absl::StrCat(parent, "/", pid, "-", ProcessStart(pid), "-", random.Token().substr(0, 8));
  if (::mkdir(path.c_str(), 0700) != 0) {
    return absl::UnavailableError(std::string(Failed("make", path).message()));
  }
  return std::unique_ptr<SharedFolder>(new SharedFolder(path));
}

SharedFolder::~SharedFolder() { RemoveFolder(path_); }

std::string SharedFolder::NewName(const std::string& mark) const {
  static std::atomic<uint64_t> next{1};
  return absl::StrCat(path_, "/", next++, mark);
}

std::string SharedFolder::NewMark() {
  static std::atomic<uint64_t> next{1};
  return absl::StrCat("-m", next++);
}

void SharedFolder::RemoveMarked(const std::string& mark) const {
  DIR* stream = ::opendir(path_.c_str());
  if (stream == nullptr) return;
  while (const dirent* entry = ::readdir(stream)) {
    if (absl::EndsWith(entry->d_name, mark)) (void)::unlinkat(::dirfd(stream), entry->d_name, 0);
  }
  ::closedir(stream);
}

std::string SharedFolder::Identity(const std::string& root) {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string boot;
  struct stat info;
  if (!std::getline(file, boot) || ::stat(root.c_str(), &info) != 0) return "";
  return absl::StrCat(boot, "/", static_cast<uint64_t>(info.st_dev), "/", ::getuid());
}

bool SharedFolder::IsFolderOfUser(const std::string& path, const std::string& root) {
  const std::string prefix = UserFolder(root) + "/";
  return absl::StartsWith(path, prefix) &&
         path.find('/', prefix.size()) == std::string::npos &&
         path.size() > prefix.size() && path[prefix.size()] != '.' && IsPrivateFolder(path);
}

bool SharedFolder::IsCrowded(const std::string& root) {
  struct statfs info;
  return ::statfs(root.c_str(), &info) != 0 || info.f_bavail < info.f_blocks / 2;
}

int SharedFolder::Sweep(const std::string& root) {
  const std::string parent = UserFolder(root);
  DIR* stream = ::opendir(parent.c_str());
  if (stream == nullptr) return 0;
  std::vector<std::string> gone;
  while (const dirent* entry = ::readdir(stream)) {
    if (entry->d_name[0] != '.' && !OwnerLives(entry->d_name)) gone.push_back(entry->d_name);
  }
  ::closedir(stream);
  for (const std::string& name : gone) RemoveFolder(absl::StrCat(parent, "/", name));
  return static_cast<int>(gone.size());
}

}  // namespace causeway
