// Compiled programs as files in one directory: found by key, checked, within a budget.
//
// One file a program: a line that names the format, the checksum of key and contents, the contents.
// A file that is not as it was written counts as absent and is removed. Several heads may share a
// directory: files are replaced atomically and every budget check looks at what is really there.
//
// Nothing here fails its caller: a disk that is full or gone costs the next head a compile, shows in
// the status and in the log (at most once a minute), and is tried again.
// Thread safety: none; one thread at a time (compile_cache.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "causeway/base/clock.h"
#include "causeway/base/file_system.h"
#include "causeway/core/status_source.h"

namespace causeway::controller {

class ProgramFiles {
 public:
  // Clock and file system are borrowed. Makes the directory if need be.
  ProgramFiles(std::string directory, int64_t max_bytes, FileSystem& files, Clock& clock);

  // A name for the file of `key`, which may be long: 64 hexadecimal digits, the same everywhere.
  static std::string Digest(absl::string_view key);

  // The contents stored under a digest; marks them as used now.
  std::optional<std::string> Find(const std::string& digest);
  void Store(const std::string& digest, absl::string_view contents);

  const core::CompileCacheStatus& status() const { return status_; }

 private:
  std::string PathOf(const std::string& digest) const;
  // Removes what was used least recently until `room` bytes fit, and leftovers of broken-off writes.
  void MakeRoom(int64_t room);
  void Failed(const absl::Status& error);

  FileSystem& files_;
  Clock& clock_;
  core::CompileCacheStatus status_;
  absl::Time next_warning_ = absl::InfinitePast();
};

}  // namespace causeway::controller
