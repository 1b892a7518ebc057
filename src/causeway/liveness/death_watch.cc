// One thread waits for all connections; each sends one line, its token, and then nothing.
#include "causeway/liveness/death_watch.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "causeway/base/limits.h"
#include "causeway/net/sockets.h"

namespace causeway::liveness {

using net::Socket;

class DeathWatch::Impl {
 public:
  absl::Status Start(const std::string& host) {
    auto listener = net::Listen(host, 0);
    if (!listener.ok()) return listener.status();
    listener_ = *std::move(listener);
    poll_ = Socket(::epoll_create1(EPOLL_CLOEXEC));
    wake_ = Socket(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!poll_ || !wake_ || !Add(listener_.fd()) || !Add(wake_.fd())) {
      return absl::ResourceExhaustedError(
          absl::StrCat("cannot watch workers: ", std::strerror(errno),
                       "; raise the limit of open files (ulimit -n)"));
    }
    thread_ = std::thread([this] { Loop(); });
    return absl::OkStatus();
  }

  ~Impl() {
    stop_ = true;
    Wake();
    if (thread_.joinable()) thread_.join();
  }

  int port() const { return net::LocalPort(listener_.fd()); }

  void Expect(const std::string& token, std::function<void()> on_end) {
    absl::MutexLock lock(&mu_);
    expected_[token] = std::move(on_end);
  }

  void Forget(const std::string& token) {
    {
      absl::MutexLock lock(&mu_);
      if (expected_.erase(token) == 0) return;
      forgotten_.push_back(token);
    }
    Wake();
  }

 private:
  struct Connection {
    Socket socket;
    std::string token;  // as far as it has come
    bool named = false;
  };

  bool Add(int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    return ::epoll_ctl(poll_.fd(), EPOLL_CTL_ADD, fd, &event) == 0;
  }

  void Wake() {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(wake_.fd(), &one, sizeof one);
  }

  void Loop() {
    std::vector<epoll_event> events(64);
    while (!stop_) {
      const int count =
          ::epoll_wait(poll_.fd(), events.data(), static_cast<int>(events.size()), -1);
      for (int i = 0; i < count; ++i) {
        const int fd = events[i].data.fd;
        if (fd == listener_.fd()) {
          Accept();
        } else if (fd == wake_.fd()) {
          uint64_t ignored;
          [[maybe_unused]] const ssize_t read = ::read(fd, &ignored, sizeof ignored);
        } else {
          Read(fd);
        }
      }
      CloseForgotten();
    }
  }

  void Accept() {
    Socket socket(::accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    // A full table turns newcomers away: their workers' deaths show on the control stream.
    if (!socket || connections_.size() >= limits::kSentinelsMax) return;
    net::Configure(socket.fd());
    const int fd = socket.fd();
    if (Add(fd)) connections_[fd].socket = std::move(socket);
  }

  void Read(int fd) {
    auto it = connections_.find(fd);
    if (it == connections_.end()) return;
    Connection& connection = it->second;
    char bytes[128];
    const ssize_t size = ::recv(fd, bytes, sizeof bytes, 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size > 0 && !connection.named) {
      connection.token.append(bytes, static_cast<size_t>(size));
      const size_t end = connection.token.find('\n');
      if (end == std::string::npos && connection.token.size() < sizeof bytes) return;
      connection.token.resize(std::min(end, connection.token.size()));
      connection.named = true;
      absl::MutexLock lock(&mu_);
      if (expected_.contains(connection.token)) return;
    } else if (size > 0) {
      return;
    }
    std::function<void()> on_end;
    if (connection.named) {
      absl::MutexLock lock(&mu_);
      auto expected = expected_.find(connection.token);
      if (expected != expected_.end()) {
        on_end = std::move(expected->second);
        expected_.erase(expected);
      }
    }
    connections_.erase(it);
    if (on_end) on_end();
  }

  void CloseForgotten() {
    std::vector<std::string> tokens;
    {
      absl::MutexLock lock(&mu_);
      tokens.swap(forgotten_);
    }
    for (const std::string& token : tokens) {
      for (auto it = connections_.begin(); it != connections_.end(); ++it) {
        if (it->second.named && it->second.token == token) {
          connections_.erase(it);
          break;
        }
      }
    }
  }

  Socket listener_, poll_, wake_;
  std::atomic<bool> stop_{false};
  absl::flat_hash_map<int, Connection> connections_;  // the thread's
  absl::Mutex mu_;
  absl::flat_hash_map<std::string, std::function<void()>> expected_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> forgotten_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

absl::StatusOr<std::unique_ptr<DeathWatch>> DeathWatch::Start(const std::string& host) {
  auto impl = std::make_unique<Impl>();
  if (absl::Status started = impl->Start(host); !started.ok()) return started;
  return std::unique_ptr<DeathWatch>(new DeathWatch(std::move(impl)));
}

DeathWatch::DeathWatch(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DeathWatch::~DeathWatch() = default;
int DeathWatch::port() const { return impl_->port(); }
void DeathWatch::Expect(const std::string& token, std::function<void()> on_end) {
  impl_->Expect(token, std::move(on_end));
}
void DeathWatch::Forget(const std::string& token) { impl_->Forget(token); }

}  // namespace causeway::liveness
