// Frames on the TCP connections between workers: a head, a message, and the bytes that it describes.
//
//   u32 magic | u32 bytes of the message | u64 bytes of the body | message | body
//
// All numbers are little-endian. The first frame of a connection holds the cluster's token and
// nothing else. From the sender come PushBatch messages, whose Data say how many bytes of the body
// are theirs, in order; from the receiver PushReply messages without a body.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message_lite.h"

namespace causeway::worker {

struct FrameHead {
  uint32_t magic = 0;
  uint32_t message_bytes = 0;
  uint64_t body_bytes = 0;
};

// Both block within the socket's timeouts. The pieces of the body are used up.
absl::Status SendFrame(int fd, const google::protobuf::MessageLite& message,
                       std::vector<iovec> body = {});
// The head and the message; the body is left to the caller. OUT_OF_RANGE at the end of the stream,
// DATA_LOSS when what comes is no frame.
absl::StatusOr<FrameHead> ReceiveFrame(int fd, google::protobuf::MessageLite* message);

}  // namespace causeway::worker
