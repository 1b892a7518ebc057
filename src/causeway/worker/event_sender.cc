// Encoding and non-blocking sends.
#include "causeway/worker/event_sender.h"

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <deque>
#include <utility>
#include <variant>

#include "causeway/net/frames.h"
#include "causeway/wire/control_codec.h"
#include "causeway/wire/control_frames.h"
#include "causeway/worker/command_codec.h"

namespace causeway::worker {
namespace {

constexpr int64_t kBytesAtOnce = 256 << 10;
// A read of so little goes out together with the reply that follows it.
constexpr size_t kSmallFetchBytes = 64 << 10;

bool ReplyFollows(const Event& event) {
  const auto* data = std::get_if<FetchData>(&event);
  return data != nullptr && data->bytes->size() <= kSmallFetchBytes;
}

}  // namespace

void EventSender::Open(std::shared_ptr<net::Socket> socket) {
  absl::MutexLock lock(&mu_);
  auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return !sending_; };
  mu_.Await(absl::Condition(&idle));  // nobody blocks inside
  out_.clear();
  sent_ = 0;
  end_ = absl::OkStatus();
  socket_ = std::move(socket);
  queue_.Open();
}

void EventSender::Close() {
  absl::MutexLock lock(&mu_);
  queue_.Close();
  socket_ = nullptr;
  if (std::exchange(stuck_, false)) sending_ = false;
}

void EventSender::Emit(Event event) {
  const bool later = ReplyFollows(event);
  queue_.Put(std::move(event));
  if (!later) Pump();
}

void EventSender::End(const absl::Status& why) {
  {
    absl::MutexLock lock(&mu_);
    end_ = why;
  }
  Pump();
}

void EventSender::Pump() {
  std::shared_ptr<net::Socket> socket;
  {
    absl::MutexLock lock(&mu_);
    if (sending_ || socket_ == nullptr) return;
    sending_ = true;
    socket = socket_;
  }
  while (true) {
    const bool all = SendWhatWaits(socket->fd());
    absl::MutexLock lock(&mu_);
    if (all && socket_ == socket && (!queue_.empty() || !end_.ok())) continue;
    stuck_ = !all && socket_ == socket;
    sending_ = stuck_;
    return;
  }
}

bool EventSender::SendWhatWaits(int fd) {
  while (true) {
    if (sent_ == out_.size()) {
      out_.clear();
      sent_ = 0;
      std::deque<Event> events = queue_.TakeSome(kBytesAtOnce);
      if (events.empty()) {
        absl::MutexLock lock(&mu_);
        if (end_.ok()) return true;
        net::AppendFrame(Kind(wire::ControlFrame::kEnd), *wire::EncodeEnd(end_), &out_);
        end_ = absl::OkStatus();
      }
      for (const Event& event : events) {
        net::AppendFrame(Kind(wire::ControlFrame::kMessage), EncodeEvent(event), &out_);
      }
    }
    const ssize_t sent =
        ::send(fd, out_.data() + sent_, out_.size() - sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return false;  // where the head is gone, the reader hears of it
    sent_ += static_cast<size_t>(sent);
  }
}

void EventSender::Drain() {
  auto stuck = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return stuck_ || socket_ == nullptr;
  };
  while (true) {
    std::shared_ptr<net::Socket> socket;
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(&stuck));
      if (socket_ == nullptr) return;
      stuck_ = false;  // sending_ stays: it is this thread's turn
      socket = socket_;
    }
    // A connection that is shut down wakes this too.
    pollfd writable{socket->fd(), POLLOUT, 0};
    ::poll(&writable, 1, -1);
    const bool lost = (writable.revents & (POLLERR | POLLHUP | POLLNVAL)) != 0;
    {
      absl::MutexLock lock(&mu_);
      sending_ = false;
      if (lost && socket_ == socket) socket_ = nullptr;
    }
    Pump();
  }
}

}  // namespace causeway::worker
