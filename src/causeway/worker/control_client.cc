// The two connections to the head: commands and events, and bytes of transfers.
#include "causeway/worker/control_client.h"

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "causeway/base/limits.h"
#include "causeway/base/log.h"
#include "causeway/base/status_macros.h"
#include "causeway/net/frames.h"
#include "causeway/wire/control_codec.h"
#include "causeway/wire/control_frames.h"
#include "causeway/worker/command_codec.h"

namespace causeway::worker {
namespace {

using wire::ControlFrame;

constexpr absl::Duration kPause = absl::Milliseconds(200);

absl::StatusOr<std::shared_ptr<net::Socket>> Greet(const std::string& head, ControlFrame lane,
                                                   const Hello& hello,
                                                   const ControlClient::OnConnected& on_connected) {
  ASSIGN_OR_RETURN(HeadConnection connection, ConnectToHead(head, hello.memory));
  std::string greeting;
  net::AppendFrame(Kind(lane), EncodeEvent(hello), &greeting);
  RETURN_IF_ERROR(net::SendAll(connection.socket.fd(), greeting));
  on_connected(connection);
  return std::make_shared<net::Socket>(std::move(connection.socket));
}

// Gives every message to `on_message` until that returns false or the stream ends.
class Messages final : public OperationThreads::Source {
 public:
  using OnMessage = std::function<bool(absl::string_view)>;

  Messages(int fd, OnMessage on_message) : fd_(fd), on_message_(std::move(on_message)) {}

  Result Read(bool wait) override {
    // A thread that waits in recv() of a Unix socket is also woken when the head takes what was sent.
    pollfd readable{fd_, POLLIN, 0};
    if (wait) ::poll(&readable, 1, -1);
    const absl::Span<char> space = reader_.Space();
    ssize_t size;
    do {
      size = ::recv(fd_, space.data(), space.size(), MSG_DONTWAIT);
    } while (size < 0 && errno == EINTR);
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return Result::kNothing;
    if (size <= 0) {
      end_ = absl::UnavailableError(size == 0 ? "the head closed the connection"
                                              : std::strerror(errno));
      return Result::kEnd;
    }
    reader_.Received(static_cast<size_t>(size));
    const absl::StatusOr<bool> more = Deliver();
    end_ = more.status();
    return more.ok() && *more ? Result::kSome : Result::kEnd;
  }

  // After kEnd: OK when `on_message` returned false, else the head's own words, or UNAVAILABLE.
  const absl::Status& end() const { return end_; }

 private:
  absl::StatusOr<bool> Deliver() {
    while (true) {
      ASSIGN_OR_RETURN(const std::optional<net::Frame> frame, reader_.Next());
      if (!frame.has_value()) return true;
      if (frame->kind == Kind(ControlFrame::kEnd)) {
        const absl::Status end = wire::DecodeEnd(frame->payload);
        return end.ok() ? absl::UnavailableError("the head closed the stream") : end;
      }
      if (!on_message_(frame->payload)) return false;
    }
  }

  const int fd_;
  const OnMessage on_message_;
  net::FrameReader reader_{limits::kMessageBytesMax};
  absl::Status end_;
};

// The connection for bytes of transfers: made, read and ended by a thread of its own.
class BulkReader {
 public:
  BulkReader(std::string head, Hello hello, const ControlClient::OnCommand& on_command,
             const ControlClient::OnConnected& on_connected)
      : thread_([this, head = std::move(head), hello = std::move(hello), &on_command,
                 &on_connected] {
          auto socket = Greet(head, ControlFrame::kBulk, hello, on_connected);
          if (!socket.ok()) {
            LOG(WARNING) << "large arrays of clients come between the commands: "
                         << socket.status().message();
            return;
          }
          {
            absl::MutexLock lock(&mu_);
            if (ended_) return;
            socket_ = *socket;
          }
          Messages messages((*socket)->fd(), [&on_command](absl::string_view bytes) {
            auto command = DecodeCommand(bytes);
            if (command.ok() && std::holds_alternative<Chunk>(*command)) {
              on_command(*std::move(command));
            } else {
              LOG(ERROR) << "the bulk stream carried something else than data";
            }
            return true;
          });
          while (messages.Read(/*wait=*/true) != Messages::Result::kEnd) continue;
        }) {}
  ~BulkReader() {
    {
      absl::MutexLock lock(&mu_);
      ended_ = true;
      if (socket_ != nullptr) ::shutdown(socket_->fd(), SHUT_RDWR);
    }
    thread_.join();
  }

 private:
  absl::Mutex mu_;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  std::shared_ptr<net::Socket> socket_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

}  // namespace

ControlClient::ControlClient(Options options, OperationThreads* threads, OnCommand on_command,
                             OnConnected on_connected)
    : options_(std::move(options)),
      threads_(threads),
      on_command_(std::move(on_command)),
      on_connected_(std::move(on_connected)) {}

bool ControlClient::OnMessage(absl::string_view bytes,
                              const std::function<void(const Welcome&)>& on_welcome) {
  auto command = DecodeCommand(bytes);
  if (!command.ok()) {
    LOG(ERROR) << "a command is dropped: " << command.status();
    return true;
  }
  if (const auto* welcome = std::get_if<Welcome>(&*command); welcome != nullptr) {
    on_welcome(*welcome);
  }
  shutdown_ = std::holds_alternative<Shutdown>(*command);
  on_command_(*std::move(command));
  return !shutdown_;
}

absl::Status ControlClient::Serve(bool* attached) {
  ASSIGN_OR_RETURN(const std::shared_ptr<net::Socket> socket,
                   Greet(options_.head, ControlFrame::kAttach, options_.hello, on_connected_));
  events_.Open(socket);
  std::thread writer([this] { events_.Drain(); });
  std::unique_ptr<BulkReader> bulk;
  const auto on_welcome = [&](const Welcome& welcome) {
    *attached = true;
    options_.hello.worker = welcome.worker;  // a spare's place, from now on
    Hello hello = options_.hello;
    hello.token = welcome.token;
    if (bulk == nullptr) {
      bulk = std::make_unique<BulkReader>(options_.head, std::move(hello), on_command_,
                                          on_connected_);
    }
  };
  Messages commands(socket->fd(), [&](absl::string_view bytes) {
    return OnMessage(bytes, on_welcome);
  });
  threads_->Serve(&commands);
  events_.Close();
  if (shutdown_) {
    std::string farewell;
    net::AppendFrame(Kind(ControlFrame::kEnd), *wire::EncodeEnd(absl::OkStatus()), &farewell);
    (void)::send(socket->fd(), farewell.data(), farewell.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  ::shutdown(socket->fd(), SHUT_RDWR);
  writer.join();
  return commands.end();
}

absl::Status ControlClient::Run() {
  absl::Time lost = absl::Now();
  absl::Duration patience = options_.connect_timeout;
  while (true) {
    bool attached = false;
    const absl::Status status = Serve(&attached);
    if (shutdown_) return absl::OkStatus();
    if (leaving_) return absl::CancelledError("this worker has left");
    if (attached) {
      LOG(WARNING) << "lost the head at " << options_.head << " (" << status.message()
                   << "); buffers are kept while looking for it";
      lost = absl::Now();
      patience = options_.reattach_timeout;
    } else if (status.code() == absl::StatusCode::kFailedPrecondition ||
               status.code() == absl::StatusCode::kInvalidArgument ||
               status.code() == absl::StatusCode::kPermissionDenied ||
               status.code() == absl::StatusCode::kUnimplemented) {
      return status;
    }
    if (absl::Now() - lost > patience) {
      return absl::UnavailableError(absl::StrCat("the head at ", options_.head,
                                                 " cannot be reached for ",
                                                 absl::FormatDuration(patience), ": ",
                                                 std::string(status.message())));
    }
    absl::SleepFor(kPause);
    // The head may have let go of a worker that was just about to say that it leaves.
    if (leaving_) return absl::CancelledError("this worker has left");
  }
}

}  // namespace causeway::worker
