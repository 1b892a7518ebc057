// Asks the head for its Unix socket and tries it.
#include "causeway/worker/head_connection.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "causeway/base/limits.h"
#include "causeway/base/shared_memory.h"
#include "causeway/base/status_macros.h"
#include "causeway/net/frames.h"
#include "causeway/net/local_sockets.h"
#include "causeway/wire/control_codec.h"
#include "causeway/wire/control_frames.h"

namespace causeway::worker {
namespace {

using wire::ControlFrame;

constexpr absl::Duration kConnectMax = absl::Seconds(1);
// A head that a thousand workers ask at once answers the last one late.
constexpr absl::Duration kAnswerMax = absl::Seconds(30);

// The head's answer, which it says nothing after before it is greeted.
struct Answer {
  uint32_t kind = 0;
  std::string payload;
};

absl::StatusOr<Answer> Ask(int fd, const std::string& memory) {
  RETURN_IF_ERROR(net::SetTimeouts(fd, kAnswerMax, kAnswerMax));
  std::string question;
  net::AppendFrame(Kind(ControlFrame::kAskLocal), memory, &question);
  RETURN_IF_ERROR(net::SendAll(fd, question));
  net::FrameReader reader(limits::kHelloBytesMax);
  while (true) {
    ASSIGN_OR_RETURN(const std::optional<net::Frame> frame, reader.Next());
    if (frame.has_value()) {
      RETURN_IF_ERROR(net::SetTimeouts(fd, absl::ZeroDuration(), absl::ZeroDuration()));
      return Answer{frame->kind, std::string(frame->payload)};
    }
    const absl::Span<char> space = reader.Space();
    const ssize_t size = ::recv(fd, space.data(), space.size(), 0);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      return absl::DeadlineExceededError(
          absl::StrCat("the head has not answered for ", absl::FormatDuration(kAnswerMax)));
    }
    if (size <= 0) {
      return absl::UnavailableError(size == 0 ? "the head closed the connection"
                                              : std::strerror(errno));
    }
    reader.Received(static_cast<size_t>(size));
  }
}

absl::StatusOr<net::Socket> ConnectTo(const std::string& path) {
  const std::string folder = path.substr(0, path.rfind('/'));
  if (!SharedFolder::IsFolderOfUser(folder)) {
    return absl::NotFoundError(absl::StrCat(folder, " is no folder of this user here"));
  }
  return net::ConnectLocal(path, kConnectMax);
}

}  // namespace

absl::StatusOr<HeadConnection> ConnectToHead(const std::string& head, const std::string& memory) {
  ASSIGN_OR_RETURN(const net::Address address, net::ParseAddress(head));
  HeadConnection result;
  ASSIGN_OR_RETURN(result.socket, net::Connect(address.host, address.port, kConnectMax));
  if (memory.empty()) {
    result.why_tcp = absl::UnavailableError("this process has no shared memory");
    return result;
  }
  result.why_tcp = net::LocalSocketsAllowed();
  if (result.why_tcp.ok()) {
    ASSIGN_OR_RETURN(Answer answer, Ask(result.socket.fd(), memory));
    if (answer.kind == Kind(ControlFrame::kLocal)) {
      absl::StatusOr<net::Socket> local = ConnectTo(answer.payload);
      if (local.ok()) {
        result.socket = *std::move(local);
        result.local = std::move(answer.payload);
        return result;
      }
      result.why_tcp = local.status();
    } else {
      result.why_tcp = wire::DecodeEnd(answer.payload);
      if (result.why_tcp.ok()) result.why_tcp = absl::UnknownError("the head does not say why");
    }
    // Of an end the head's words are the result.
    if (answer.kind == Kind(ControlFrame::kEnd)) return result.why_tcp;
  }
  // Between two machines there is nothing to fall back from.
  result.fell_back = !absl::IsFailedPrecondition(result.why_tcp);
  return result;
}

}  // namespace causeway::worker
