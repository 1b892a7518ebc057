// Jobs and troubles of the simulated disk.
#include "causeway/sim/disk.h"

#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace causeway::sim {
namespace {

constexpr char kDirectory[] = "/programs";
constexpr int64_t kMaxBytes = int64_t{1} << 30;
constexpr absl::Duration kSeekMax = absl::Milliseconds(5);

}  // namespace

Disk::Disk(Scheduler& scheduler, uint64_t seed)
    : random_(seed),
      disk_(scheduler),
      files_(kDirectory, kMaxBytes, disk_, scheduler),
      jobs_(scheduler, random_, kSeekMax, [] { return absl::InfinitePast(); }) {}

void Disk::Find(std::string key, Found done) {
  jobs_.Send([this, key = std::move(key), done = std::move(done)]() mutable {
    std::move(done)(files_.Find(controller::ProgramFiles::Digest(key)));
  });
}

void Disk::Store(std::string key, std::string contents) {
  jobs_.Send([this, key = std::move(key), contents = std::move(contents)] {
    files_.Store(controller::ProgramFiles::Digest(key), contents);
  });
}

void Disk::Fail(Trouble trouble) {
  failed_ = true;
  switch (trouble) {
    case Trouble::kFull:
      disk_.SetCapacity(0);
      return;
    case Trouble::kUnwritable:
      disk_.FailWrites(absl::PermissionDeniedError("sim: the disk is read-only"));
      return;
    case Trouble::kUnreadable:
      disk_.FailReads(absl::UnknownError("sim: Input/output error"));
      return;
    case Trouble::kDamaged:
      damaging_ = true;
      Damage();
      return;
  }
}

void Disk::Damage() {
  const auto found = disk_.List(kDirectory);
  if (!found.ok()) return;
  for (const FileInfo& file : *found) {
    const std::string path = absl::StrCat(kDirectory, "/", file.name);
    const absl::StatusOr<std::string> bytes = disk_.Read(path);
    if (!bytes.ok()) continue;
    // A number in the program itself: what is still a program then computes something else.
    std::vector<size_t> numbers;
    for (size_t at = bytes->find("fake "); at < bytes->size(); ++at) {
      if (absl::ascii_isdigit(static_cast<unsigned char>((*bytes)[at]))) numbers.push_back(at);
    }
    if (!numbers.empty()) disk_.FlipByte(path, numbers[random_.Below(numbers.size())]);
  }
}

void Disk::Mend() {
  if (std::exchange(damaging_, false)) Damage();
  disk_.SetCapacity(int64_t{1} << 60);
  disk_.FailWrites(absl::OkStatus());
  disk_.FailReads(absl::OkStatus());
}

}  // namespace causeway::sim
