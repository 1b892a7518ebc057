// Splitting and joining of fuzz inputs.
#include "causeway/fuzz/frames.h"

#include <algorithm>

#include "absl/synchronization/mutex.h"
#include "causeway/fuzz/target.h"
#include "google/protobuf/stubs/logging.h"

namespace causeway::fuzz {

std::vector<Frame> SplitFrames(absl::string_view input, size_t max) {
  std::vector<Frame> frames;
  while (!input.empty() && frames.size() < max) {
    Frame frame;
    frame.kind = static_cast<uint8_t>(input.front());
    input.remove_prefix(1);
    uint64_t length = 0;
    for (int shift = 0; shift < 35 && !input.empty(); shift += 7) {
      const auto byte = static_cast<uint8_t>(input.front());
      input.remove_prefix(1);
      length |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    const size_t size = std::min<uint64_t>(length, input.size());
    frame.bytes = std::string(input.substr(0, size));
    input.remove_prefix(size);
    frames.push_back(std::move(frame));
  }
  return frames;
}

void AppendFrame(uint8_t kind, absl::string_view bytes, std::string* out) {
  out->push_back(static_cast<char>(kind));
  uint64_t length = bytes.size();
  for (; length >= 0x80; length >>= 7) out->push_back(static_cast<char>(length | 0x80));
  out->push_back(static_cast<char>(length));
  out->append(bytes.data(), bytes.size());
}

std::string JoinFrames(const std::vector<Frame>& frames) {
  std::string out;
  for (const Frame& frame : frames) AppendFrame(frame.kind, frame.bytes, &out);
  return out;
}

void QuietLibraries() {
  google::protobuf::SetLogHandler(nullptr);
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
}

}  // namespace causeway::fuzz
