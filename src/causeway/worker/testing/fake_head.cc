// The recording listener behind FakeHead: a thread a connection.
#include "causeway/worker/testing/fake_head.h"

#include <grpcpp/grpcpp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <deque>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "causeway/net/frames.h"
#include "causeway/net/sockets.h"
#include "causeway/wire/control_frames.h"

namespace causeway::worker::testing {
namespace {

using wire::ControlFrame;

constexpr char kToken[] = "token-of-the-fake-head";
constexpr absl::Duration kPatience = absl::Seconds(60);

void SendFrame(const net::Socket& socket, const control::Command& command) {
  std::string frame;
  net::AppendFrame(Kind(ControlFrame::kMessage), command.SerializeAsString(), &frame);
  (void)net::SendAll(socket.fd(), frame);
}

// It has no Unix socket.
void SendNoLocal(const net::Socket& socket) {
  control::Status why;
  why.set_code(static_cast<int>(absl::StatusCode::kUnavailable));
  why.set_message("a head of tests has TCP only");
  std::string frame;
  net::AppendFrame(Kind(ControlFrame::kNoLocal), why.SerializeAsString(), &frame);
  (void)net::SendAll(socket.fd(), frame);
}

}  // namespace

class FakeHead::Impl {
 public:
  using SocketRef = std::shared_ptr<net::Socket>;
  struct Peer {
    SocketRef stream, bulk;  // null: not there
    control::Hello hello;
    std::deque<control::Event> events;
  };

  explicit Impl(grpc::Service* beside) : listener(*net::Listen("127.0.0.1", 0)) {
    accepter = std::thread([this] { AcceptLoop(); });
    if (beside == nullptr) return;
    grpc::ServerBuilder builder;
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &beside_port);
    builder.RegisterService(beside);
    server = builder.BuildAndStart();
  }

  ~Impl() {
    ::shutdown(listener.fd(), SHUT_RDWR);
    accepter.join();
    Drop();
    for (std::thread& reader : readers) reader.join();
    if (server != nullptr) {
      server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
    }
  }

  void Drop() {
    absl::MutexLock lock(&mu);
    for (const SocketRef& socket : sockets) ::shutdown(socket->fd(), SHUT_RDWR);
    sockets.clear();
    peers.clear();
  }

  void AcceptLoop() {
    while (true) {
      pollfd waiting{listener.fd(), POLLIN, 0};
      ::poll(&waiting, 1, -1);
      if ((waiting.revents & POLLHUP) != 0) return;
      auto accepted = net::Accept(listener.fd());
      if (!accepted.ok()) continue;
      auto socket = std::make_shared<net::Socket>(*std::move(accepted));
      absl::MutexLock lock(&mu);
      sockets.push_back(socket);
      readers.emplace_back([this, socket] { ReadLoop(socket); });
    }
  }

  void ReadLoop(const SocketRef& socket) {
    net::FrameReader reader(1 << 30);
    int worker = -1;
    while (true) {
      const absl::Span<char> space = reader.Space();
      const ssize_t size = ::recv(socket->fd(), space.data(), space.size(), 0);
      if (size <= 0) break;
      reader.Received(static_cast<size_t>(size));
      while (true) {
        auto frame = reader.Next();
        if (!frame.ok() || !frame->has_value()) break;
        control::Event event;
        if ((**frame).kind == Kind(ControlFrame::kEnd)) continue;
        if ((**frame).kind == Kind(ControlFrame::kAskLocal)) {
          SendNoLocal(*socket);
          continue;
        }
        if (!event.ParseFromString(std::string((**frame).payload))) break;
        absl::MutexLock lock(&mu);
        if (event.has_hello()) {
          worker = event.hello().worker();
          Greeted(static_cast<ControlFrame>((**frame).kind), event.hello(), socket);
        } else if (peers[worker].stream == socket) {
          Take(&peers[worker], std::move(event));
        }
      }
    }
    absl::MutexLock lock(&mu);
    std::erase(sockets, socket);
    const auto peer = peers.find(worker);
    if (peer == peers.end()) return;
    if (peer->second.stream == socket) peer->second.stream = nullptr;
    if (peer->second.bulk == socket) peer->second.bulk = nullptr;
  }

  void Greeted(ControlFrame lane, const control::Hello& hello, const SocketRef& socket)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    Peer& peer = peers[hello.worker()];
    if (lane == ControlFrame::kAttach) {
      peer = Peer{socket, nullptr, hello, {}};
    } else if (lane == ControlFrame::kBulk && hello.token() == kToken) {
      peer.bulk = socket;
    } else {
      ::shutdown(socket->fd(), SHUT_RDWR);
    }
  }

  void Take(Peer* peer, control::Event event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    if (!event.has_at_rendezvous()) {
      peer->events.push_back(std::move(event));
      return;
    }
    // Nobody waits for anybody here: the tests say when each worker launches.
    control::Command proceed;
    proceed.mutable_proceed()->set_epoch(event.at_rendezvous().epoch());
    proceed.mutable_proceed()->set_seq(event.at_rendezvous().seq());
    SendFrame(*peer->stream, proceed);
  }

  absl::Mutex mu;
  std::map<int, Peer> peers ABSL_GUARDED_BY(mu);
  std::vector<SocketRef> sockets ABSL_GUARDED_BY(mu);
  std::vector<std::thread> readers ABSL_GUARDED_BY(mu);
  const net::Socket listener;
  std::thread accepter;
  std::unique_ptr<grpc::Server> server;
  int beside_port = 0;
};

FakeHead::FakeHead() : FakeHead(nullptr) {}
FakeHead::FakeHead(grpc::Service* beside) : impl_(std::make_unique<Impl>(beside)) {}
FakeHead::~FakeHead() = default;

std::string FakeHead::address() const {
  return absl::StrCat("127.0.0.1:", net::LocalPort(impl_->listener.fd()));
}

std::string FakeHead::beside_address() const {
  return absl::StrCat("127.0.0.1:", impl_->beside_port);
}

void FakeHead::DropStreams() { impl_->Drop(); }

absl::StatusOr<control::Hello> FakeHead::WaitAttached(int worker) {
  absl::MutexLock lock(&impl_->mu);
  auto there = [&] {
    const auto it = impl_->peers.find(worker);
    return it != impl_->peers.end() && it->second.stream != nullptr;
  };
  if (!impl_->mu.AwaitWithTimeout(absl::Condition(&there), kPatience)) {
    return absl::DeadlineExceededError(absl::StrCat("worker ", worker, " did not attach"));
  }
  return impl_->peers[worker].hello;
}

bool FakeHead::WaitBulk(int worker) {
  absl::MutexLock lock(&impl_->mu);
  auto there = [&] { return impl_->peers[worker].bulk != nullptr; };
  return impl_->mu.AwaitWithTimeout(absl::Condition(&there), kPatience);
}

void FakeHead::Send(int worker, const control::Command& command) {
  control::Command copy = command;
  if (copy.has_welcome()) {
    copy.mutable_welcome()->set_token(kToken);
    copy.mutable_welcome()->set_push_token("the cluster's secret");
  }
  absl::MutexLock lock(&impl_->mu);
  if (const auto& socket = impl_->peers[worker].stream; socket != nullptr) SendFrame(*socket, copy);
}

void FakeHead::SendBulk(int worker, const control::Command& command) {
  absl::MutexLock lock(&impl_->mu);
  if (const auto& socket = impl_->peers[worker].bulk; socket != nullptr) {
    SendFrame(*socket, command);
  }
}

absl::StatusOr<control::Event> FakeHead::WaitEvent(
    int worker, const std::function<bool(const control::Event&)>& match,
    absl::Duration timeout) {
  absl::MutexLock lock(&impl_->mu);
  // Evaluated more than once: it may only look.
  auto there = [&] {
    const auto& events = impl_->peers[worker].events;
    return std::any_of(events.begin(), events.end(), match);
  };
  if (!impl_->mu.AwaitWithTimeout(absl::Condition(&there), timeout)) {
    return absl::DeadlineExceededError(absl::StrCat("no such event from worker ", worker));
  }
  auto& events = impl_->peers[worker].events;
  const auto it = std::find_if(events.begin(), events.end(), match);
  control::Event found = std::move(*it);
  events.erase(it);
  return found;
}

absl::StatusOr<FakeHead::Answer> FakeHead::WaitReply(int worker, uint64_t request) {
  Answer answer;
  while (true) {
    auto event = WaitEvent(worker, [request](const control::Event& e) {
      return (e.has_reply() && e.reply().request() == request) ||
             (e.has_fetch_data() && e.fetch_data().request() == request);
    });
    if (!event.ok()) return event.status();
    if (event->has_reply()) {
      answer.reply = event->reply();
      return answer;
    }
    answer.data[event->fetch_data().device()] += event->fetch_data().bytes();
  }
}

}  // namespace causeway::worker::testing
