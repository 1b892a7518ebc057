// Frames on the TCP connections between workers: a head, a message, whole blocks, and the bytes.
//
//   u32 magic | u32 bytes of the message | u32 whole blocks | u32 0 | u64 bytes of the body
//   message | 24 bytes a whole block | body
//
// All numbers are little-endian. The first frame of a connection holds the cluster's token and
// nothing else. From the sender come small blocks, each described by a WholeBlock and nothing more,
// and PushBatch messages, whose Data say how many bytes of the body are theirs. The whole blocks'
// bytes are the first of the body; all in order. From the receiver come PushReply messages alone.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "google/protobuf/message_lite.h"

namespace causeway::worker {

struct FrameHead {
  uint32_t magic = 0;
  uint32_t message_bytes = 0;
  uint32_t num_wholes = 0;
  uint32_t zero = 0;
  uint64_t body_bytes = 0;
};
// A transfer that is all in this frame's body.
struct WholeBlock {
  uint64_t transfer = 0;
  uint64_t checksum = 0;  // xxh3 of its bytes, when has_checksum is 1
  uint32_t size = 0;
  uint16_t attempt = 0;
  uint16_t has_checksum = 0;
};
static_assert(sizeof(FrameHead) == 24 && sizeof(WholeBlock) == 24);

// Blocks within the socket's timeout. The pieces of the body are used up.
absl::Status SendFrame(int fd, const google::protobuf::MessageLite& message,
                       std::vector<iovec> body = {}, absl::Span<const WholeBlock> wholes = {});

// The frames that come over one connection. What is small is read together with what follows it.
// Thread safety: none.
class FrameSource {
 public:
  // The descriptor is borrowed; nobody else reads from it.
  explicit FrameSource(int fd) : fd_(fd) {}
  // The next frame but for its body, which is left to Body(). Both block within the socket's
  // timeout. OUT_OF_RANGE at the end of the stream, UNAVAILABLE when it ends elsewhere, DATA_LOSS
  // when what comes is no frame, or has whole blocks where none are expected (null).
  absl::StatusOr<FrameHead> Next(google::protobuf::MessageLite* message,
                                 std::vector<WholeBlock>* wholes = nullptr);
  // The next bytes of the frame's body. The entries of `pieces` are used up.
  absl::Status Body(absl::Span<iovec> pieces);
  absl::Status Body(void* to, size_t size);

 private:
  // Until so many bytes are in the buffer, which can hold them.
  absl::Status Fill(size_t size);
  const int fd_;
  std::unique_ptr<char[]> buffer_;
  size_t begin_ = 0, end_ = 0;  // what is in it
};

}  // namespace causeway::worker
