// Tests of the way to the head: its Unix socket, names that lead nowhere, other machines.
#include "causeway/worker/head_connection.h"

#include <poll.h>
#include <sys/socket.h>

#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "causeway/base/shared_memory.h"
#include "causeway/net/frames.h"
#include "causeway/net/local_sockets.h"
#include "causeway/wire/control_codec.h"
#include "causeway/wire/control_frames.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace causeway::worker {
namespace {

using ::testing::HasSubstr;
using wire::ControlFrame;

// Answers one question on one TCP connection with a frame.
class AskedHead {
 public:
  AskedHead(ControlFrame kind, std::string answer)
      : listener_(*net::Listen("127.0.0.1", 0)), thread_([this, kind, answer] {
          pollfd waiting{listener_.fd(), POLLIN, 0};
          if (::poll(&waiting, 1, 20'000) != 1) return;
          net::Socket socket = *net::Accept(listener_.fd());
          (void)net::SetTimeouts(socket.fd(), absl::Seconds(20), absl::Seconds(20));
          net::FrameHeader header;
          if (!net::ReceiveAll(socket.fd(), header.data(), header.size()).ok()) return;
          question_.resize(static_cast<unsigned char>(header[0]));
          if (!net::ReceiveAll(socket.fd(), question_.data(), question_.size()).ok()) return;
          kind_ = header[4];
          std::string frame;
          net::AppendFrame(Kind(kind), answer, &frame);
          (void)net::SendAll(socket.fd(), frame);
          char end;
          (void)net::ReceiveAll(socket.fd(), &end, 1);
          greeting_ = end;
        }) {}
  ~AskedHead() { Join(); }

  std::string address() { return absl::StrCat("127.0.0.1:", net::LocalPort(listener_.fd())); }
  // What was asked, and the first byte after the answer (0: the connection ended).
  void Join() {
    if (thread_.joinable()) thread_.join();
  }
  int kind() const { return kind_; }
  const std::string& question() const { return question_; }
  char greeting() const { return greeting_; }

 private:
  const net::Socket listener_;
  int kind_ = -1;
  std::string question_;
  char greeting_ = 0;
  std::thread thread_;
};

class HeadConnectionTest : public ::testing::Test {
 protected:
  HeadConnectionTest() {
    auto folder = SharedFolder::Create();
    if (folder.ok()) folder_ = *std::move(folder);
  }
  void SetUp() override {
    if (folder_ == nullptr) GTEST_SKIP() << "no shared memory here";
  }
  // That it serves: what is sent arrives at the head's TCP end.
  static void ExpectTcp(absl::StatusOr<HeadConnection> connection, AskedHead& head) {
    ASSERT_TRUE(connection.ok()) << connection.status();
    EXPECT_EQ(connection->local, "");
    EXPECT_TRUE(net::SendAll(connection->socket.fd(), "h").ok());
    head.Join();
    EXPECT_EQ(head.greeting(), 'h');
  }

  std::unique_ptr<SharedFolder> folder_;
};

TEST_F(HeadConnectionTest, GoesThroughTheUnixSocketThatTheHeadNames) {
  const std::string path = folder_->path() + "/workers";
  const net::Socket listener = *net::ListenLocal(path);
  AskedHead head(ControlFrame::kLocal, path);
  auto connection = ConnectToHead(head.address(), "this memory");
  ASSERT_TRUE(connection.ok()) << connection.status();
  EXPECT_EQ(connection->local, path);
  EXPECT_FALSE(connection->fell_back);
  head.Join();
  EXPECT_EQ(head.kind(), static_cast<int>(ControlFrame::kAskLocal));
  EXPECT_EQ(head.question(), "this memory");
  EXPECT_EQ(head.greeting(), 0);  // the other connection is over
  const net::Socket there = *net::Accept(listener.fd());
  ASSERT_TRUE(net::SendAll(connection->socket.fd(), "h").ok());
  char got;
  EXPECT_TRUE(net::ReceiveAll(there.fd(), &got, 1).ok());
  EXPECT_EQ(got, 'h');
}

TEST_F(HeadConnectionTest, ANameThatLeadsNowhereMeansTcpAndIsSaid) {
  AskedHead head(ControlFrame::kLocal, folder_->path() + "/workers");
  auto connection = ConnectToHead(head.address(), "this memory");
  ASSERT_TRUE(connection.ok()) << connection.status();
  EXPECT_TRUE(connection->fell_back);
  EXPECT_THAT(connection->why_tcp.message(), HasSubstr("/workers: No such file"));
  ExpectTcp(std::move(connection), head);
}

TEST_F(HeadConnectionTest, NoSocketOutsideOfTheUsersFoldersIsTouched) {
  AskedHead head(ControlFrame::kLocal, "/tmp/somebody's");
  auto connection = ConnectToHead(head.address(), "this memory");
  ASSERT_TRUE(connection.ok()) << connection.status();
  EXPECT_TRUE(connection->fell_back);
  EXPECT_THAT(connection->why_tcp.message(), HasSubstr("/tmp is no folder of this user here"));
  ExpectTcp(std::move(connection), head);
}

TEST_F(HeadConnectionTest, AHeadOnAnotherMachineIsNoFallback) {
  AskedHead head(ControlFrame::kNoLocal, *wire::EncodeEnd(absl::FailedPreconditionError("far")));
  auto connection = ConnectToHead(head.address(), "this memory");
  ASSERT_TRUE(connection.ok()) << connection.status();
  EXPECT_FALSE(connection->fell_back);
  EXPECT_EQ(connection->why_tcp.message(), "far");
  ExpectTcp(std::move(connection), head);
}

TEST_F(HeadConnectionTest, AHeadThatHasNoneSaysWhy) {
  AskedHead head(ControlFrame::kNoLocal, *wire::EncodeEnd(absl::UnavailableError("it is off")));
  auto connection = ConnectToHead(head.address(), "this memory");
  ASSERT_TRUE(connection.ok()) << connection.status();
  EXPECT_TRUE(connection->fell_back);
  EXPECT_EQ(connection->why_tcp.message(), "it is off");
  ExpectTcp(std::move(connection), head);
}

TEST_F(HeadConnectionTest, ARefusalIsTheHeadsOwnWords) {
  AskedHead head(ControlFrame::kEnd, *wire::EncodeEnd(absl::InvalidArgumentError("who are you")));
  const absl::Status refused = ConnectToHead(head.address(), "this memory").status();
  EXPECT_EQ(refused, absl::InvalidArgumentError("who are you"));
}

TEST_F(HeadConnectionTest, WhereItIsSwitchedOffNobodyIsAsked) {
  ASSERT_EQ(::setenv("CAUSEWAY_LOCAL_SOCKET", "off", 1), 0);
  const net::Socket listener = *net::Listen("127.0.0.1", 0);
  const std::string head = absl::StrCat("127.0.0.1:", net::LocalPort(listener.fd()));
  auto connection = ConnectToHead(head, "this memory");
  ::unsetenv("CAUSEWAY_LOCAL_SOCKET");
  ASSERT_TRUE(connection.ok()) << connection.status();
  EXPECT_EQ(connection->local, "");
  EXPECT_TRUE(connection->fell_back);
  EXPECT_THAT(connection->why_tcp.message(), HasSubstr("CAUSEWAY_LOCAL_SOCKET=off"));
  // Nor where there is no memory to have in common.
  connection = ConnectToHead(head, "");
  ASSERT_TRUE(connection.ok()) << connection.status();
  EXPECT_FALSE(connection->fell_back);
}

}  // namespace
}  // namespace causeway::worker
