// Frames over blocking sockets.
#include "causeway/worker/peer_frames.h"

#include <algorithm>
#include <bit>

#include "absl/strings/str_cat.h"
#include "causeway/base/limits.h"
#include "causeway/base/status_macros.h"
#include "causeway/net/sockets.h"

namespace causeway::worker {
namespace {

static_assert(std::endian::native == std::endian::little, "frames are sent as they lie in memory");

constexpr uint32_t kMagic = 0x31465743;  // "CWF1"

}  // namespace

absl::Status SendFrame(int fd, const google::protobuf::MessageLite& message,
                       std::vector<iovec> body) {
  FrameHead head{kMagic, static_cast<uint32_t>(message.ByteSizeLong()), 0};
  for (const iovec& piece : body) head.body_bytes += piece.iov_len;
  std::string first(sizeof(head) + head.message_bytes, '\0');
  std::copy_n(reinterpret_cast<const char*>(&head), sizeof(head), first.data());
  message.SerializeWithCachedSizesToArray(reinterpret_cast<uint8_t*>(&first[sizeof(head)]));
  body.insert(body.begin(), iovec{first.data(), first.size()});
  return net::SendAll(fd, absl::MakeSpan(body));
}

absl::StatusOr<FrameHead> ReceiveFrame(int fd, google::protobuf::MessageLite* message) {
  FrameHead head;
  RETURN_IF_ERROR(net::ReceiveAll(fd, &head, sizeof(head)));
  if (head.magic != kMagic || head.message_bytes > limits::kPushMessageBytesMax ||
      head.body_bytes > static_cast<uint64_t>(limits::kPushBodyBytesMax)) {
    return absl::DataLossError("the peer sent something that is no frame of a worker");
  }
  std::string bytes(head.message_bytes, '\0');
  if (!bytes.empty()) {
    absl::Status received = net::ReceiveAll(fd, bytes.data(), bytes.size());
    if (absl::IsOutOfRange(received)) {
      received = absl::UnavailableError("the peer ended the stream in the middle of a frame");
    }
    RETURN_IF_ERROR(received);
  }
  if (!message->ParseFromString(bytes)) {
    return absl::DataLossError("the peer sent a frame whose message cannot be read");
  }
  return head;
}

}  // namespace causeway::worker
