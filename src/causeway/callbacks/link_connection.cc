// The link's connection: made in the background, written by one thread, read by another.
#include <sys/socket.h>

#include <array>
#include <thread>

#include "absl/strings/str_cat.h"
#include "causeway/base/log.h"
#include "causeway/base/status_macros.h"
#include "causeway/callbacks/link.h"

namespace causeway::callbacks {
namespace {

constexpr absl::Duration kFirstPause = absl::Milliseconds(50);
constexpr absl::Duration kLongestPause = absl::Seconds(2);

bool SendAll(int fd, absl::string_view bytes, bool more) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | (more ? MSG_MORE : 0));
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

bool SendFrame(int fd, const Frame& frame, absl::string_view payload) {
  return SendAll(fd, EncodeHeader(frame, payload.size()), !payload.empty()) &&
         SendAll(fd, payload, false);
}

absl::StatusOr<Frame> ReceiveFrame(int fd, FrameReader& reader) {
  Frame frame;
  while (true) {
    const ssize_t n = ::recv(fd, reader.data(), reader.space(), 0);
    if (n <= 0) return absl::UnavailableError("the callback relay closed the connection");
    ASSIGN_OR_RETURN(bool complete, reader.Advance(static_cast<size_t>(n), frame));
    if (complete) return frame;
  }
}

}  // namespace

void Link::Start(LinkOptions options) {
  options_ = std::move(options);
  thread_ = std::thread([this] { Run(); });
}

Link::~Link() {
  {
    absl::MutexLock lock(&mu_);
    stop_ = true;
    if (socket_) ::shutdown(socket_.fd(), SHUT_RDWR);
  }
  if (thread_.joinable()) thread_.join();
}

absl::Status Link::WaitConnected(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  if (mu_.AwaitWithTimeout(absl::Condition(&connected_), timeout)) return absl::OkStatus();
  return absl::DeadlineExceededError(absl::StrCat("no connection to the callback relay at ",
                                                  options_.host, ":", options_.port, " after ",
                                                  absl::FormatDuration(timeout)));
}

bool Link::Owns(int local_port) const {
  absl::MutexLock lock(&mu_);
  return local_port_ != 0 && local_port == local_port_;
}

void Link::Run() {
  absl::Duration pause = kFirstPause;
  bool told = false;
  while (true) {
    const absl::Status status = Handshake();
    if (status.ok()) {
      pause = kFirstPause;
      told = false;
      std::thread writer([this] { WriteUntilLost(); });
      ReadUntilLost();
      writer.join();
      FailAll(absl::UnavailableError(
          "host callback: the worker lost its connection to the head while the call ran"));
    } else if (!told) {
      LOG(WARNING) << status.message() << "; trying on";
      told = true;
    }
    absl::MutexLock lock(&mu_);
    local_port_ = 0;
    socket_ = net::Socket();
    if (mu_.AwaitWithTimeout(absl::Condition(&stop_), pause)) return;
    pause = std::min(2 * pause, kLongestPause);
  }
}

absl::Status Link::Handshake() {
  ASSIGN_OR_RETURN(net::Socket socket, net::Connect(options_.host, options_.port));
  const int fd = socket.fd();
  {
    absl::MutexLock lock(&mu_);
    if (stop_) return absl::CancelledError("the worker stops");
    local_port_ = net::LocalPort(fd);
    socket_ = std::move(socket);
  }
  const Frame hello{.kind = Kind::kWorkerHello, .call = options_.worker};
  if (!SendFrame(fd, hello, EncodeHello(""))) {
    return absl::UnavailableError("the callback relay took no hello");
  }
  FrameReader reader;
  ASSIGN_OR_RETURN(Frame answer, ReceiveFrame(fd, reader));
  if (answer.kind != Kind::kWelcome) {
    return absl::FailedPreconditionError(
        absl::StrCat("the callback relay refused this worker: ", answer.payload));
  }
  absl::MutexLock lock(&mu_);
  connected_ = true;
  for (const auto& [key, count] : uses_) {
    control_.push_back(Frame{.kind = Kind::kUse, .call = key.second, .payload = key.first});
  }
  return absl::OkStatus();
}

void Link::ReadUntilLost() {
  int fd = -1;
  {
    absl::MutexLock lock(&mu_);
    fd = socket_.fd();
  }
  FrameReader reader;
  while (true) {
    absl::StatusOr<Frame> frame = ReceiveFrame(fd, reader);
    if (!frame.ok()) break;
    OnFrame(*std::move(frame));
  }
  ::shutdown(fd, SHUT_RDWR);
  absl::MutexLock lock(&mu_);
  connected_ = false;  // wakes the writer
}

void Link::WriteUntilLost() {
  while (true) {
    Frame frame;
    std::string piece;
    int fd = -1;
    {
      absl::MutexLock lock(&mu_);
      auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return !connected_ || CanSend(); };
      mu_.Await(absl::Condition(&ready));
      if (!connected_ || !TakeNext(frame, piece)) return;
      fd = socket_.fd();
    }
    // Only the reader declares the connection lost: it may be writing results just now.
    if (!SendFrame(fd, frame, piece)) ::shutdown(fd, SHUT_RDWR);
  }
}

}  // namespace causeway::callbacks
