// Files in memory.
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "causeway/base/file_system.h"
#include "causeway/base/status_macros.h"

namespace causeway {

absl::Status FakeFileSystem::MakeDirectories(const std::string&) {
  absl::MutexLock lock(&mu_);
  return write_error_;
}

absl::StatusOr<std::vector<FileInfo>> FakeFileSystem::List(const std::string& directory) {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(read_error_);
  std::vector<FileInfo> found;
  const std::string prefix = absl::StrCat(directory, "/");
  for (const auto& [path, file] : files_) {
    if (!absl::StartsWith(path, prefix)) continue;
    found.push_back(
        {path.substr(prefix.size()), static_cast<int64_t>(file.bytes.size()), file.used});
  }
  return found;
}

absl::StatusOr<std::string> FakeFileSystem::Read(const std::string& path) {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(read_error_);
  const auto it = files_.find(path);
  if (it == files_.end()) return absl::NotFoundError(absl::StrCat("cannot open ", path));
  return it->second.bytes;
}

absl::Status FakeFileSystem::WriteAtomically(const std::string& path, absl::string_view bytes) {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(write_error_);
  int64_t used = static_cast<int64_t>(bytes.size());
  for (const auto& [name, file] : files_) used += static_cast<int64_t>(file.bytes.size());
  if (used > capacity_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot write ", path, ": No space left on device"));
  }
  files_[path] = {std::string(bytes), clock_.WallNow()};
  return absl::OkStatus();
}

absl::Status FakeFileSystem::Remove(const std::string& path) {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(write_error_);
  if (files_.erase(path) == 0) return absl::NotFoundError(absl::StrCat("cannot remove ", path));
  return absl::OkStatus();
}

absl::Status FakeFileSystem::Touch(const std::string& path) {
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(write_error_);
  const auto it = files_.find(path);
  if (it == files_.end()) return absl::NotFoundError(absl::StrCat("cannot touch ", path));
  it->second.used = clock_.WallNow();
  return absl::OkStatus();
}

void FakeFileSystem::FailWrites(absl::Status error) {
  absl::MutexLock lock(&mu_);
  write_error_ = std::move(error);
}

void FakeFileSystem::FailReads(absl::Status error) {
  absl::MutexLock lock(&mu_);
  read_error_ = std::move(error);
}

void FakeFileSystem::SetCapacity(int64_t bytes) {
  absl::MutexLock lock(&mu_);
  capacity_ = bytes;
}

bool FakeFileSystem::FlipByte(const std::string& path, size_t at) {
  absl::MutexLock lock(&mu_);
  const auto it = files_.find(path);
  if (it == files_.end() || at >= it->second.bytes.size()) return false;
  it->second.bytes[at] = static_cast<char>(it->second.bytes[at] ^ 1);
  return true;
}

void FakeFileSystem::Plant(const std::string& path, std::string bytes) {
  absl::MutexLock lock(&mu_);
  files_[path] = {std::move(bytes), clock_.WallNow()};
}

bool FakeFileSystem::Exists(const std::string& path) {
  absl::MutexLock lock(&mu_);
  return files_.contains(path);
}

}  // namespace causeway
