// Frames over blocking sockets.
#include "causeway/worker/peer_frames.h"

#include <sys/socket.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <climits>
#include <cstring>
#include <string>
#include <utility>

#include "causeway/base/limits.h"
#include "causeway/base/status_macros.h"
#include "causeway/net/sockets.h"

namespace causeway::worker {
namespace {

static_assert(std::endian::native == std::endian::little, "frames are sent as they lie in memory");

constexpr uint32_t kMagic = 0x32465743;  // "CWF2"
// The messages of most frames; of a large body it is what is copied once more.
constexpr size_t kBufferBytes = 16 << 10;
constexpr uint32_t kWholesMax = limits::kPushMessageBytesMax / sizeof(WholeBlock);

absl::Status Lost(int error) {
  if (error == EAGAIN || error == EWOULDBLOCK) {
    return absl::DeadlineExceededError("the peer did not send what is waited for in time");
  }
  return absl::ErrnoToStatus(error, "the connection to the peer is lost");
}

absl::Status CutOff() {
  return absl::UnavailableError("the peer ended the stream in the middle of a frame");
}

}  // namespace

absl::Status SendFrame(int fd, const google::protobuf::MessageLite& message,
                       std::vector<iovec> body, absl::Span<const WholeBlock> wholes) {
  FrameHead head{kMagic, static_cast<uint32_t>(message.ByteSizeLong()),
                 static_cast<uint32_t>(wholes.size()), 0, 0};
  for (const iovec& piece : body) head.body_bytes += piece.iov_len;
  std::string first(sizeof(head) + head.message_bytes, '\0');
  std::copy_n(reinterpret_cast<const char*>(&head), sizeof(head), first.data());
  message.SerializeWithCachedSizesToArray(reinterpret_cast<uint8_t*>(&first[sizeof(head)]));
  if (!wholes.empty()) {
    first.append(reinterpret_cast<const char*>(wholes.data()), wholes.size() * sizeof(WholeBlock));
  }
  body.insert(body.begin(), iovec{first.data(), first.size()});
  return net::SendAll(fd, absl::MakeSpan(body));
}

absl::Status FrameSource::Fill(size_t size) {
  if (end_ - begin_ >= size) return absl::OkStatus();
  if (buffer_ == nullptr) buffer_.reset(new char[kBufferBytes]);
  std::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
  end_ -= std::exchange(begin_, 0);
  while (end_ < size) {
    const ssize_t received = ::recv(fd_, buffer_.get() + end_, kBufferBytes - end_, 0);
    if (received < 0 && errno == EINTR) continue;
    if (received < 0) return Lost(errno);
    if (received == 0 && end_ == 0) return absl::OutOfRangeError("the peer ended the stream");
    if (received == 0) return CutOff();
    end_ += static_cast<size_t>(received);
  }
  return absl::OkStatus();
}

absl::Status FrameSource::Body(absl::Span<iovec> pieces) {
  auto used = [&pieces](size_t size) {
    while (!pieces.empty() && size >= pieces.front().iov_len) {
      size -= pieces.front().iov_len;
      pieces.remove_prefix(1);
    }
    if (pieces.empty()) return;
    pieces.front().iov_base = static_cast<char*>(pieces.front().iov_base) + size;
    pieces.front().iov_len -= size;
  };
  used(0);
  while (!pieces.empty() && begin_ < end_) {
    const size_t here = std::min(pieces.front().iov_len, end_ - begin_);
    std::memcpy(pieces.front().iov_base, buffer_.get() + begin_, here);
    begin_ += here;
    used(here);
  }
  while (!pieces.empty()) {
    msghdr message{};
    message.msg_iov = pieces.data();
    message.msg_iovlen = std::min<size_t>(pieces.size(), IOV_MAX);
    const ssize_t received = ::recvmsg(fd_, &message, MSG_WAITALL);
    if (received < 0 && errno == EINTR) continue;
    if (received < 0) return Lost(errno);
    if (received == 0) return CutOff();
    used(static_cast<size_t>(received));
  }
  return absl::OkStatus();
}

absl::Status FrameSource::Body(void* to, size_t size) {
  iovec piece{to, size};
  return Body(absl::MakeSpan(&piece, 1));
}

absl::StatusOr<FrameHead> FrameSource::Next(google::protobuf::MessageLite* message,
                                            std::vector<WholeBlock>* wholes) {
  FrameHead head;
  RETURN_IF_ERROR(Fill(sizeof(head)));
  std::memcpy(&head, buffer_.get() + begin_, sizeof(head));
  begin_ += sizeof(head);
  if (head.magic != kMagic || head.message_bytes > limits::kPushMessageBytesMax ||
      head.num_wholes > (wholes == nullptr ? 0 : kWholesMax) ||
      head.body_bytes > static_cast<uint64_t>(limits::kPushBodyBytesMax)) {
    return absl::DataLossError("the peer sent something that is no frame of a worker");
  }
  bool parsed = false;
  if (head.message_bytes <= kBufferBytes) {
    const absl::Status filled = Fill(head.message_bytes);
    if (!filled.ok()) return absl::IsOutOfRange(filled) ? CutOff() : filled;
    parsed = message->ParseFromArray(buffer_.get() + begin_, static_cast<int>(head.message_bytes));
    begin_ += head.message_bytes;
  } else {
    std::string bytes(head.message_bytes, '\0');
    RETURN_IF_ERROR(Body(bytes.data(), bytes.size()));
    parsed = message->ParseFromString(bytes);
  }
  if (!parsed) return absl::DataLossError("the peer sent a frame whose message cannot be read");
  if (wholes != nullptr) {
    wholes->resize(head.num_wholes);
    RETURN_IF_ERROR(Body(wholes->data(), wholes->size() * sizeof(WholeBlock)));
  }
  return head;
}

}  // namespace causeway::worker
