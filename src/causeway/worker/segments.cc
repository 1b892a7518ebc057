// Which segment is filled next, and which mappings are kept.
#include "causeway/worker/segments.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "causeway/base/status_macros.h"

namespace causeway::worker {
namespace {

// Segments come in multiples of this, so that blocks of about the same size share them.
constexpr int64_t kStep = 1 << 20;
// A mapping that was not used for so many others goes.
constexpr size_t kMapsMax = 512;
// Blocks of these sizes do not stay in a processor's caches, but libraries copy them as if they
// did: each line that is written is read first. (Larger ones they copy as is done here.)
constexpr size_t kStreamBytesMin = 32 << 20;
constexpr size_t kStreamBytesMax = 160 << 20;

// `to` starts on a page.
void Copy(char* to, const char* from, size_t size) {
  size_t done = 0;
#ifdef __SSE2__
  if (size >= kStreamBytesMin && size < kStreamBytesMax) {
    constexpr size_t kLine = 64, kWord = sizeof(__m128i);
    for (; done + kLine <= size; done += kLine) {
      __m128i words[kLine / kWord];
      std::memcpy(words, from + done, kLine);
      for (size_t i = 0; i < kLine / kWord; ++i) {
        _mm_stream_si128(reinterpret_cast<__m128i*>(to + done + i * kWord), words[i]);
      }
    }
    _mm_sfence();
  }
#endif
  std::memcpy(to + done, from + done, size - done);
}

}  // namespace

// ---------------------------------------------------------------- sender

absl::StatusOr<SegmentPool::Segment> SegmentPool::Fill(const char* data, int64_t size) {
  const int64_t want = (size + kStep - 1) / kStep * kStep;
  Segment found;
  {
    absl::MutexLock lock(&mu_);
    for (auto it = segments_.begin(); it != segments_.end(); ++it) {
      if ((*it)->size() < want || (*it)->size() > 2 * want || (*it)->has_other_names()) continue;
      found = std::move(*it);
      segments_.erase(it);
      break;
    }
    if (found == nullptr && bytes_ + want > limits_.total_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat("receivers hold ", bytes_, " bytes of shared memory, at most ",
                       limits_.total_bytes, " may be"));
    }
    if (found == nullptr) bytes_ += want;
  }
  if (found != nullptr) {
    Copy(found->mutable_data(), data, static_cast<size_t>(size));
    return found;
  }
  absl::StatusOr<Segment> made = SharedFile::Create(
      folder_->NewName(), want, absl::string_view(data, static_cast<size_t>(size)));
  if (!made.ok()) {
    absl::MutexLock lock(&mu_);
    bytes_ -= want;
  }
  return made;
}

absl::StatusOr<std::string> SegmentPool::Hand(const char* data, int64_t size,
                                              const std::string& mark) {
  ASSIGN_OR_RETURN(Segment segment, Fill(data, size));
  const std::string name = folder_->NewName(mark);
  const absl::Status linked = segment->Link(name);
  absl::MutexLock lock(&mu_);
  segments_.push_front(std::move(segment));
  Trim();
  RETURN_IF_ERROR(linked);
  return name;
}

void SegmentPool::Trim() {
  int64_t spare = 0;
  for (auto it = segments_.begin(); it != segments_.end();) {
    if ((*it)->has_other_names()) {
      ++it;
      continue;
    }
    spare += (*it)->size();
    if (spare <= limits_.spare_bytes) {
      ++it;
      continue;
    }
    bytes_ -= (*it)->size();
    it = segments_.erase(it);
  }
}

int64_t SegmentPool::total_bytes() {
  absl::MutexLock lock(&mu_);
  return bytes_;
}

// ---------------------------------------------------------------- receiver

struct SegmentMaps::Map {
  ~Map() {
    if (data != nullptr) ::munmap(data, size);
    if (fd >= 0) ::close(fd);
  }
  // The sender has given the segment up: no new name will come for it.
  bool dead() const {
    struct stat info;
    return ::fstat(fd, &info) != 0 || info.st_nlink == 0;
  }
  int fd = -1;  // keeps the inode's number from being used for another file
  char* data = nullptr;
  size_t size = 0;
};

SegmentMaps::~SegmentMaps() = default;

void SegmentMaps::DropDead() {
  for (auto it = maps_.begin(); it != maps_.end();) {
    const auto current = it++;
    if (current->second->dead() || maps_.size() > kMapsMax) maps_.erase(current);
  }
}

absl::StatusOr<device::HostBytes> SegmentMaps::Open(const std::string& name, int64_t size) {
  int fd = ::open(name.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", name));
  absl::Cleanup close = [&fd] {
    if (fd >= 0) ::close(fd);
  };
  struct stat info;
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_uid != ::getuid() || size <= 0 ||
      info.st_size < size) {
    return absl::DataLossError(
        absl::StrCat(name, " is not a segment of ", size, " bytes of this user"));
  }
  std::shared_ptr<Map> map;
  {
    absl::MutexLock lock(&mu_);
    const auto it = maps_.find(info.st_ino);
    if (it != maps_.end()) map = it->second;
  }
  if (map == nullptr) {
    map = std::make_shared<Map>();
    map->size = static_cast<size_t>(info.st_size);
    // The segment is this process's until its name is removed, to the point of writing to it.
    void* data = ::mmap(nullptr, map->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) return absl::ErrnoToStatus(errno, absl::StrCat("cannot map ", name));
    map->data = static_cast<char*>(data);
    map->fd = std::exchange(fd, -1);
    absl::MutexLock lock(&mu_);
    DropDead();
    maps_[info.st_ino] = map;
  }
  struct Held {
    ~Held() { (void)::unlink(name.c_str()); }
    std::shared_ptr<Map> map;
    std::string name;
  };
  auto held = std::make_shared<Held>();
  held->map = map;
  held->name = name;
  return device::HostBlock::Borrow(map->data, static_cast<size_t>(size), std::move(held));
}

}  // namespace causeway::worker
