// The format of a program's file, and which files go when room is short.
#include "causeway/controller/program_files.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "causeway/base/log.h"
#include "causeway/base/probes.h"

namespace causeway::controller {
namespace {

constexpr absl::string_view kMagic = "causeway program 1\n";
constexpr absl::string_view kSuffix = ".program";
constexpr absl::Duration kPartialsLive = absl::Hours(1);
constexpr absl::Duration kWarningInterval = absl::Minutes(1);

std::string Hash(absl::string_view bytes, XXH64_hash_t seed) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_withSeed(bytes.data(), bytes.size(), seed));
  return std::string(reinterpret_cast<const char*>(canonical.digest), sizeof(canonical.digest));
}

std::string Checksum(const std::string& digest, absl::string_view contents) {
  return Hash(absl::StrCat(digest, Hash(contents, 0)), 0);
}

}  // namespace

ProgramFiles::ProgramFiles(std::string directory, int64_t max_bytes, FileSystem& files,
                           Clock& clock)
    : files_(files), clock_(clock) {
  status_.directory = std::move(directory);
  status_.max_bytes = max_bytes;
  if (absl::Status made = files_.MakeDirectories(status_.directory); !made.ok()) Failed(made);
  MakeRoom(0);
}

std::string ProgramFiles::Digest(absl::string_view key) {
  return absl::BytesToHexString(absl::StrCat(Hash(key, 1), Hash(key, 2)));
}

std::string ProgramFiles::PathOf(const std::string& digest) const {
  return absl::StrCat(status_.directory, "/", digest, kSuffix);
}

std::optional<std::string> ProgramFiles::Find(const std::string& digest) {
  const std::string path = PathOf(digest);
  absl::StatusOr<std::string> file = files_.Read(path);
  if (!file.ok()) {
    ++status_.misses;
    if (!absl::IsNotFound(file.status())) Failed(file.status());
    return std::nullopt;
  }
  constexpr size_t kHead = kMagic.size() + sizeof(XXH128_canonical_t);
  const bool sound =
      file->size() >= kHead && absl::StartsWith(*file, kMagic) &&
      (PLANTED("program_files.believes_any_bytes") ||
       file->compare(kMagic.size(), sizeof(XXH128_canonical_t),
                     Checksum(digest, absl::string_view(*file).substr(kHead))) == 0);
  if (!sound) {
    ++status_.misses;
    ++status_.dropped;
    LOG(WARNING) << "a compiled program on disk is damaged and is dropped: " << path;
    if (absl::Status gone = files_.Remove(path); !gone.ok()) Failed(gone);
    return std::nullopt;
  }
  ++status_.hits;
  // Without it the program only looks older than it is.
  if (absl::Status touched = files_.Touch(path); !touched.ok()) Failed(touched);
  return file->substr(kHead);
}

void ProgramFiles::Store(const std::string& digest, absl::string_view contents) {
  const std::string file = absl::StrCat(kMagic, Checksum(digest, contents), contents);
  const auto size = static_cast<int64_t>(file.size());
  if (size > status_.max_bytes) {
    Failed(absl::ResourceExhaustedError(
        absl::StrCat("a compiled program of ", size, " bytes is larger than the whole cache may be (",
                     status_.max_bytes, "); give the head a larger --compile-cache-bytes")));
    return;
  }
  MakeRoom(size);
  // The directory may have been removed since; a write must not fail for that.
  if (absl::Status made = files_.MakeDirectories(status_.directory); !made.ok()) Failed(made);
  if (absl::Status written = files_.WriteAtomically(PathOf(digest), file); !written.ok()) {
    Failed(written);
    return;
  }
  ++status_.stored;
  ++status_.files;
  status_.bytes += size;
}

void ProgramFiles::MakeRoom(int64_t room) {
  absl::StatusOr<std::vector<FileInfo>> found = files_.List(status_.directory);
  if (!found.ok()) {
    if (!absl::IsNotFound(found.status())) Failed(found.status());
    return;
  }
  const absl::Time now = clock_.WallNow();
  std::vector<FileInfo> programs;
  status_.bytes = 0;
  for (FileInfo& file : *found) {
    if (absl::StrContains(file.name, FileSystem::kPartialMark)) {
      if (now - file.used < kPartialsLive) continue;
      (void)files_.Remove(absl::StrCat(status_.directory, "/", file.name));
    } else if (absl::EndsWith(file.name, kSuffix)) {
      status_.bytes += file.bytes;
      programs.push_back(std::move(file));
    }
  }
  status_.files = static_cast<int64_t>(programs.size());
  if (status_.bytes + room <= status_.max_bytes) return;
  std::sort(programs.begin(), programs.end(),
            [](const FileInfo& a, const FileInfo& b) { return a.used < b.used; });
  for (const FileInfo& file : programs) {
    if (status_.bytes + room <= status_.max_bytes) break;
    const absl::Status gone = files_.Remove(absl::StrCat(status_.directory, "/", file.name));
    // Another head may have been faster.
    if (!gone.ok() && !absl::IsNotFound(gone)) {
      Failed(gone);
      continue;
    }
    ++status_.evicted;
    --status_.files;
    status_.bytes -= file.bytes;
  }
}

void ProgramFiles::Failed(const absl::Status& error) {
  ++status_.errors;
  status_.last_error = std::string(error.message());
  const absl::Time now = clock_.Now();
  if (now < next_warning_) return;
  next_warning_ = now + kWarningInterval;
  LOG(WARNING) << "the cache of compiled programs has trouble (programs are compiled where it does "
                  "not help): "
               << error.message();
}

}  // namespace causeway::controller
