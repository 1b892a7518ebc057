// Messages on a byte stream: a header of 8 bytes (u32 size of the payload, u32 kind, little-endian),
// then the payload.
//
// Thread safety: none; one reader and one writer a stream.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace causeway::net {

inline constexpr size_t kFrameHeaderBytes = 8;
using FrameHeader = std::array<char, kFrameHeaderBytes>;
FrameHeader EncodeFrameHeader(uint32_t kind, size_t payload_bytes);
// Behind what is there.
void AppendFrame(uint32_t kind, absl::string_view payload, std::string* out);

struct Frame {
  uint32_t kind = 0;
  absl::string_view payload;
};

// Cuts a stream into frames, without a copy for those that come whole.
class FrameReader {
 public:
  explicit FrameReader(size_t max_payload) : max_payload_(max_payload) {}
  void set_max_payload(size_t bytes) { max_payload_ = bytes; }

  // Where the next bytes of the stream go; never empty. Grows with what has come, not with what a
  // header promises.
  absl::Span<char> Space();
  // `n` bytes have been put there.
  void Received(size_t n) { end_ += n; }
  // The next frame; its payload is valid until Space() is called. None: more bytes are needed.
  // RESOURCE_EXHAUSTED: a frame is longer than allowed; the stream is of no use any more.
  absl::StatusOr<std::optional<Frame>> Next();
  // A frame has begun and is not whole.
  bool in_frame() const { return begin_ != end_; }

 private:
  size_t max_payload_;
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;
};

// Frames on their way into a non-blocking socket; payloads are shared, never copied.
class FrameWriter {
 public:
  void Add(uint32_t kind, std::shared_ptr<const std::string> payload);
  // Gives the socket as much as it takes. True: all of it; UNAVAILABLE: the peer is gone.
  absl::StatusOr<bool> Flush(int fd);
  bool empty() const { return frames_.empty(); }
  // Of payloads not yet taken whole.
  int64_t bytes() const { return bytes_; }
  void Clear();

 private:
  struct Pending {
    FrameHeader header;
    std::shared_ptr<const std::string> payload;
  };
  std::deque<Pending> frames_;
  size_t sent_ = 0;  // of the first frame, header included
  int64_t bytes_ = 0;
};

}  // namespace causeway::net
