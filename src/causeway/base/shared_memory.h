// How processes of one user on one machine hand each other large blocks: files in memory, mapped.
//
// Every process that makes such files has a folder of its own below one folder a user:
//   /dev/shm/causeway-UID/PID-START-RANDOM/NAME
// A file lives as long as it has a name or a mapping. Whoever dies leaves names behind: the next
// process that makes a folder removes those of processes that are gone.
//
// Source of the layout: python/causeway/client/shared_memory.py makes folders of the same kind.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace causeway {

// A mapped file. Thread safety: immutable but for the bytes, whose order of use is the owners'.
class SharedFile {
 public:
  // A new file of `bytes` bytes (more than 0), `first` in front and zeros behind it.
  // RESOURCE_EXHAUSTED when memory is short. The name goes when the object does.
  static absl::StatusOr<std::shared_ptr<SharedFile>> Create(const std::string& path, int64_t bytes,
                                                            absl::string_view first = {});
  // What to do with the name of a file that somebody else made.
  enum class Name { kRemoveNow, kRemoveLast };
  // Maps `bytes` bytes from `offset` on; changes stay private to this process. NOT_FOUND;
  // DATA_LOSS when the file is shorter; PERMISSION_DENIED when it is another user's. The name is
  // left alone when the call fails.
  static absl::StatusOr<std::shared_ptr<SharedFile>> Open(const std::string& path, int64_t offset,
                                                          int64_t bytes, Name name);
  ~SharedFile();
  SharedFile(const SharedFile&) = delete;
  SharedFile& operator=(const SharedFile&) = delete;

  const std::string& path() const { return path_; }
  const char* data() const { return data_; }
  char* mutable_data() { return data_; }
  int64_t size() const { return size_; }
  // Gives the file one more name, in the same file system.
  absl::Status Link(const std::string& path) const;
  // Somebody else has a name for the file: Link() was called and the name is still there.
  bool has_other_names() const;

 private:
  SharedFile() = default;
  std::string path_;  // empty: it has none that is ours
  int fd_ = -1;       // of created files
  void* mapping_ = nullptr;
  size_t mapped_ = 0;
  char* data_ = nullptr;
  int64_t size_ = 0;
};

// This process's folder. Thread safety: thread-safe.
class SharedFolder {
 public:
  static constexpr char kRoot[] = "/dev/shm";

  // UNAVAILABLE (say why) where `root` is no memory file system that this user may use, and where
  // the environment says CAUSEWAY_SHARED_MEMORY=off: as if every process had a machine of its own.
  static absl::StatusOr<std::unique_ptr<SharedFolder>> Create(const std::string& root = kRoot);
  ~SharedFolder();
  SharedFolder(const SharedFolder&) = delete;
  SharedFolder& operator=(const SharedFolder&) = delete;

  const std::string& path() const { return path_; }
  // A name in it that no other call returns; `mark` is part of it.
  std::string NewName(const std::string& mark = "") const;
  // A mark that no other call returns.
  static std::string NewMark();
  // Removes every file with that mark in its name.
  void RemoveMarked(const std::string& mark) const;

  // "" when there is none: processes with the same text see each other's files in `root`.
  static std::string Identity(const std::string& root = kRoot);
  // Whether `path` is the folder of some process of this user: what a client may point us at.
  static bool IsFolderOfUser(const std::string& path, const std::string& root = kRoot);
  // More than half of the memory that files in `root` may take is taken: what is in use for long
  // had better lie elsewhere.
  static bool IsCrowded(const std::string& root = kRoot);
  // Removes the folders of processes that are gone; returns how many.
  static int Sweep(const std::string& root = kRoot);

 private:
  explicit SharedFolder(std::string path) : path_(std::move(path)) {}
  const std::string path_;
};

}  // namespace causeway
