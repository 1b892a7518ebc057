// Tests of the relay and the worker's link over real sockets, against a client written here.
#include "causeway/callbacks/relay.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "causeway/callbacks/link.h"
#include "causeway/net/sockets.h"

namespace causeway::callbacks {
namespace {

const char kToken[] = "0123456789abcdef0123456789abcdef";
constexpr auto kPatience = std::chrono::seconds(30);

// Speaks the client's side of the protocol, blocking.
class TestClient {
 public:
  TestClient(int port, const std::string& token) : socket_(*net::Connect("127.0.0.1", port)) {
    Send(Frame{.kind = Kind::kClientHello}, EncodeHello(token));
  }
  void Send(const Frame& frame, absl::string_view payload) {
    const std::string bytes = EncodeHeader(frame, payload.size()) + std::string(payload);
    SendRaw(bytes);
  }
  void SendRaw(absl::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(socket_.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return;
      bytes.remove_prefix(n);
    }
  }
  // Nullopt: the relay closed the connection.
  std::optional<Frame> Receive() {
    Frame frame;
    while (true) {
      const ssize_t n = ::recv(socket_.fd(), reader_.data(), reader_.space(), 0);
      if (n <= 0) return std::nullopt;
      auto complete = reader_.Advance(n, frame);
      if (!complete.ok()) return std::nullopt;
      if (*complete) return frame;
    }
  }
  // The whole of one call's message, if its pieces come one after the other.
  std::string ReceiveCall(Frame& head) {
    std::string message;
    while (true) {
      head = *Receive();
      EXPECT_EQ(head.kind, Kind::kCall);
      absl::string_view bytes = head.payload;
      bytes.remove_prefix(kTokenChars);
      uint64_t total = 0;
      if (head.first) TakeInt(bytes, total);
      message.append(bytes.data(), bytes.size());
      if (head.last) return message;
    }
  }
  void Answer(const Frame& call, absl::string_view result) {
    std::string first;
    AppendInt<uint64_t>(first, result.size());
    Frame frame{.kind = Kind::kResult, .worker = call.worker, .call = call.call};
    while (true) {
      const size_t part = std::min(kPieceBytes - first.size(), result.size());
      first.append(result.data(), part);
      result.remove_prefix(part);
      frame.last = result.empty();
      Send(frame, first);
      if (frame.last) return;
      frame.first = false;
      first.clear();
    }
  }

 private:
  net::Socket socket_;
  FrameReader reader_;
};

class RelayTest : public ::testing::Test {
 protected:
  RelayTest() : relay_(*Relay::Start({.release_grace = absl::ZeroDuration()})) {
    link_ = NewLink();
  }
  std::unique_ptr<Link> NewLink() {
    auto link = std::make_unique<Link>();
    link->Start({.host = "127.0.0.1", .port = relay_->port()});
    EXPECT_TRUE(link->WaitConnected(absl::Seconds(30)).ok());
    return link;
  }
  std::unique_ptr<TestClient> NewClient(const std::string& token = kToken) {
    auto client = std::make_unique<TestClient>(relay_->port(), token);
    EXPECT_EQ(client->Receive()->kind, Kind::kWelcome);
    return client;
  }
  std::future<absl::Status> Call(std::string message, std::string& result,
                                 const std::string& token = kToken) {
    auto promise = std::make_shared<std::promise<absl::Status>>();
    link_->Call(token, std::move(message), {absl::MakeSpan(result)},
                [promise](absl::Status s) { promise->set_value(std::move(s)); });
    return promise->get_future();
  }
  absl::Status Wait(std::future<absl::Status>& future) {
    if (future.wait_for(kPatience) != std::future_status::ready) {
      return absl::DeadlineExceededError("the call never ended");
    }
    return future.get();
  }

  std::unique_ptr<Relay> relay_;
  std::unique_ptr<Link> link_;
};

TEST_F(RelayTest, CarriesLargeMessagesWhole) {
  auto client = NewClient();
  std::string big(40 << 20, '\0');  // several windows
  for (size_t i = 0; i < big.size(); i += 4096) big[i] = static_cast<char>(i >> 12);
  std::string result(big.size(), '\0');
  auto future = Call(big, result);
  Frame head;
  std::string message = client->ReceiveCall(head);
  EXPECT_EQ(message, big);
  std::reverse(message.begin(), message.end());
  client->Answer(head, message);
  ASSERT_EQ(Wait(future), absl::OkStatus());
  EXPECT_EQ(result, message);
}

TEST_F(RelayTest, ASmallCallOvertakesALargeOne) {
  auto client = NewClient();
  std::string none;
  auto large = Call(std::string(64 << 20, 'L'), none);
  Frame first = *client->Receive();
  auto small = Call("small", none);
  // The client has not read the large one yet: the small one comes long before its end.
  int64_t before = 0;
  while (true) {
    Frame frame = *client->Receive();
    if (frame.call != first.call) {
      client->Answer(frame, "");
      break;
    }
    before += frame.payload.size();
  }
  EXPECT_LT(before, 48 << 20);
  EXPECT_EQ(Wait(small), absl::OkStatus());
  client->Answer(first, "");  // before all pieces are there: the rest is not wanted
  EXPECT_EQ(Wait(large), absl::OkStatus());
}

TEST_F(RelayTest, ErrorsAndWrongSizesReachTheCaller) {
  auto client = NewClient();
  std::string result(8, '\0');
  auto failing = Call("x", result);
  Frame head;
  client->ReceiveCall(head);
  const Frame error = ErrorFrame(head.worker, head.call, absl::InternalError("Traceback"));
  client->Send(error, error.payload);
  EXPECT_EQ(Wait(failing), absl::InternalError("Traceback"));
  for (const char* wrong : {"", "1234567", "123456789"}) {
    auto future = Call("x", result);
    client->ReceiveCall(head);
    client->Answer(head, wrong);
    EXPECT_EQ(Wait(future).code(), absl::StatusCode::kInternal) << wrong;
  }
}

TEST_F(RelayTest, AClientThatDiesFailsItsCallsAndNoOthers) {
  const std::string other(kTokenChars, 'a');
  auto client = NewClient();
  auto survivor = NewClient(other);
  std::string none;
  auto doomed = Call("x", none);
  auto half_sent = Call(std::string(64 << 20, 'L'), none);
  auto safe = Call("y", none, other);
  client.reset();
  EXPECT_EQ(Wait(doomed).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Wait(half_sent).code(), absl::StatusCode::kUnavailable);
  auto later = Call("x", none);
  EXPECT_EQ(Wait(later).code(), absl::StatusCode::kUnavailable);
  Frame head;
  EXPECT_EQ(survivor->ReceiveCall(head), "y");
  survivor->Answer(head, "");
  EXPECT_EQ(Wait(safe), absl::OkStatus());
  // The token is free again, and the worker's window for it whole.
  client = NewClient();
  auto again = Call(std::string(20 << 20, 'z'), none);
  EXPECT_EQ(client->ReceiveCall(head).size(), 20u << 20);
  client->Answer(head, "");
  EXPECT_EQ(Wait(again), absl::OkStatus());
}

TEST_F(RelayTest, ASlowClientHoldsUpNobodyElse) {
  const std::string other(kTokenChars, 'a');
  auto slow = NewClient();  // reads nothing
  auto quick = NewClient(other);
  std::string none;
  std::vector<std::future<absl::Status>> stuck;
  for (int i = 0; i < 4; ++i) stuck.push_back(Call(std::string(32 << 20, 's'), none));
  for (int i = 0; i < 20; ++i) {
    auto future = Call("q", none, other);
    Frame head;
    quick->ReceiveCall(head);
    quick->Answer(head, "");
    ASSERT_EQ(Wait(future), absl::OkStatus());
  }
  EXPECT_EQ(stuck[0].wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  slow.reset();
  for (auto& future : stuck) EXPECT_EQ(Wait(future).code(), absl::StatusCode::kUnavailable);
}

TEST_F(RelayTest, AWorkerThatDiesCancelsItsCalls) {
  auto client = NewClient();
  std::string none;
  auto future = Call("x", none);
  Frame head;
  client->ReceiveCall(head);
  link_.reset();
  EXPECT_EQ(Wait(future).code(), absl::StatusCode::kUnavailable);
  const Frame told = *client->Receive();
  EXPECT_EQ(told.kind, Kind::kWorkerGone);
  EXPECT_EQ(told.worker, head.worker);
}

TEST_F(RelayTest, ForeignTokenIsRefused) {
  auto client = NewClient();
  TestClient thief(relay_->port(), kToken);
  EXPECT_EQ(thief.Receive()->kind, Kind::kRefused);
  EXPECT_FALSE(thief.Receive().has_value());
}

TEST_F(RelayTest, GarbageEndsOneConnectionOnly) {
  auto client = NewClient();
  for (const std::string& bytes : {std::string("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
                                   std::string(100, '\xff'), std::string(100, '\0')}) {
    auto bad = NewClient(std::string(kTokenChars, 'b'));
    bad->SendRaw(bytes);
    EXPECT_FALSE(bad->Receive().has_value());
  }
  std::string none;
  auto future = Call("x", none);
  Frame head;
  client->ReceiveCall(head);
  client->Answer(head, "");
  EXPECT_EQ(Wait(future), absl::OkStatus());
}

TEST_F(RelayTest, ALostRelayFailsCallsAndTheLinkComesBack) {
  auto client = NewClient();
  std::string none;
  auto future = Call("x", none);
  Frame head;
  client->ReceiveCall(head);
  link_->Use(kToken, 3);
  const int port = relay_->port();
  relay_.reset();
  EXPECT_EQ(Wait(future).code(), absl::StatusCode::kUnavailable);
  relay_ = *Relay::Start({.port = port, .release_grace = absl::ZeroDuration()});
  EXPECT_TRUE(link_->WaitConnected(absl::Seconds(30)).ok());
  client = NewClient();
  // The new relay has heard of the use: the group goes only after it.
  auto barrier = Call("b", none);
  client->ReceiveCall(head);
  client->Answer(head, "");
  ASSERT_EQ(Wait(barrier), absl::OkStatus());
  relay_->ProgramGone(kToken, 3);
  link_->Unuse(kToken, 3);
  const Frame released = *client->Receive();
  EXPECT_EQ(released.kind, Kind::kRelease);
  EXPECT_EQ(released.call, 3u);
}

TEST(Completions, EachRunsEvenIfAllOthersWait) {
  static auto& completions = *new Completions;
  constexpr int kCount = 50;
  auto mu = std::make_shared<absl::Mutex>();
  auto arrived = std::make_shared<int>(0);
  std::vector<std::future<bool>> results;
  for (int i = 0; i < kCount; ++i) {
    auto promise = std::make_shared<std::promise<bool>>();
    results.push_back(promise->get_future());
    completions.Add([mu, arrived, promise] {
      absl::MutexLock lock(mu.get());
      ++*arrived;
      auto all = [&] { return *arrived == kCount; };
      promise->set_value(mu->AwaitWithTimeout(absl::Condition(&all), absl::Seconds(30)));
    });
  }
  for (auto& result : results) EXPECT_TRUE(result.get());
}

}  // namespace
}  // namespace causeway::callbacks
