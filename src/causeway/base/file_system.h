// The file system seam: whole files, replaced atomically, on a real disk or in memory.
//
// Errors: NOT_FOUND, RESOURCE_EXHAUSTED (the disk or a quota is full), PERMISSION_DENIED, or what else
// errno says; the message names the path.
// Thread safety: all methods are thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "causeway/base/clock.h"

namespace causeway {

struct FileInfo {
  std::string name;  // without the directory
  int64_t bytes = 0;
  absl::Time used;  // when it was written or touched last
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;
  // Makes the directory and its parents, for this user alone; OK when it exists.
  virtual absl::Status MakeDirectories(const std::string& path) = 0;
  // The regular files in a directory, in no order.
  virtual absl::StatusOr<std::vector<FileInfo>> List(const std::string& directory) = 0;
  virtual absl::StatusOr<std::string> Read(const std::string& path) = 0;
  // Readers see the old file or the new one, whenever this process ends. What a broken-off write
  // leaves behind is named `path` + kPartialMark + something.
  virtual absl::Status WriteAtomically(const std::string& path, absl::string_view bytes) = 0;
  virtual absl::Status Remove(const std::string& path) = 0;
  // Sets FileInfo::used to now.
  virtual absl::Status Touch(const std::string& path) = 0;

  static constexpr char kPartialMark[] = ".partial.";
};

class RealFileSystem : public FileSystem {
 public:
  absl::Status MakeDirectories(const std::string& path) override;
  absl::StatusOr<std::vector<FileInfo>> List(const std::string& directory) override;
  absl::StatusOr<std::string> Read(const std::string& path) override;
  absl::Status WriteAtomically(const std::string& path, absl::string_view bytes) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status Touch(const std::string& path) override;
};

// Files in memory, and a disk that fails when it is told to.
class FakeFileSystem : public FileSystem {
 public:
  // The clock is borrowed.
  explicit FakeFileSystem(Clock& clock) : clock_(clock) {}

  absl::Status MakeDirectories(const std::string& path) override;
  absl::StatusOr<std::vector<FileInfo>> List(const std::string& directory) override;
  absl::StatusOr<std::string> Read(const std::string& path) override;
  absl::Status WriteAtomically(const std::string& path, absl::string_view bytes) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status Touch(const std::string& path) override;

  // Every call that writes (or reads) fails with this from now on; OK mends the disk.
  void FailWrites(absl::Status error);
  void FailReads(absl::Status error);
  // Room for file contents; a write beyond it is RESOURCE_EXHAUSTED.
  void SetCapacity(int64_t bytes);
  // Damages a byte of a file; false when it has none at that place.
  bool FlipByte(const std::string& path, size_t at);
  // Puts a file there as if somebody else had written it.
  void Plant(const std::string& path, std::string bytes);
  bool Exists(const std::string& path);

 private:
  struct File {
    std::string bytes;
    absl::Time used;
  };
  Clock& clock_;
  absl::Mutex mu_;
  std::map<std::string, File> files_ ABSL_GUARDED_BY(mu_);
  absl::Status write_error_ ABSL_GUARDED_BY(mu_);
  absl::Status read_error_ ABSL_GUARDED_BY(mu_);
  int64_t capacity_ ABSL_GUARDED_BY(mu_) = int64_t{1} << 60;
};

}  // namespace causeway
