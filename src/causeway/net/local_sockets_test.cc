// Tests of Unix sockets: both ends, who may, names that lead nowhere.
#include "causeway/net/local_sockets.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace causeway::net {
namespace {

using ::testing::HasSubstr;

class LocalSockets : public ::testing::Test {
 protected:
  LocalSockets() {
    std::string name = absl::StrCat(::testing::TempDir(), "local-XXXXXX");
    folder_ = ::mkdtemp(name.data());
  }
  ~LocalSockets() override { std::filesystem::remove_all(folder_); }

  std::string folder_;
};

TEST_F(LocalSockets, BothEndsAreConnectedAndOfOneUser) {
  const std::string path = folder_ + "/here";
  auto listener = ListenLocal(path);
  ASSERT_TRUE(listener.ok()) << listener.status();
  auto here = ConnectLocal(path, absl::Seconds(5));
  ASSERT_TRUE(here.ok()) << here.status();
  auto there = Accept(listener->fd());
  ASSERT_TRUE(there.ok()) << there.status();
  EXPECT_TRUE(CheckSameUser(here->fd()).ok());
  EXPECT_TRUE(CheckSameUser(there->fd()).ok());
  ASSERT_TRUE(SendAll(here->fd(), "abc").ok());
  char got[3];
  ASSERT_TRUE(ReceiveAll(there->fd(), got, sizeof got).ok());
  EXPECT_EQ(std::string(got, sizeof got), "abc");
  EXPECT_EQ(PeerName(there->fd()), absl::StrCat("process ", ::getpid(), " of this machine"));
  // Nobody else waits, and the end is seen.
  EXPECT_EQ(Accept(listener->fd()).status().code(), absl::StatusCode::kUnavailable);
  *here = Socket();
  EXPECT_EQ(ReceiveAll(there->fd(), got, 1).code(), absl::StatusCode::kOutOfRange);
}

TEST_F(LocalSockets, ATakenNameIsNotTakenOver) {
  const std::string path = folder_ + "/here";
  auto first = ListenLocal(path);
  ASSERT_TRUE(first.ok());
  const auto second = ListenLocal(path);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(second.status().message(), HasSubstr(path));
  EXPECT_TRUE(ConnectLocal(path, absl::Seconds(5)).ok());
}

TEST_F(LocalSockets, ANameThatLeadsNowhereSaysSo) {
  const std::string path = folder_ + "/nobody";
  EXPECT_THAT(ConnectLocal(path, absl::Seconds(5)).status().message(),
              HasSubstr(absl::StrCat("cannot connect to ", path, ": No such file")));
  ASSERT_TRUE(ListenLocal(path).ok());  // and ends
  EXPECT_THAT(ConnectLocal(path, absl::Seconds(5)).status().message(), HasSubstr("refused"));
  const std::string longest(sizeof(sockaddr_un::sun_path), 'x');
  EXPECT_EQ(ListenLocal(longest).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ConnectLocal(longest, absl::Seconds(5)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(LocalSockets, WhoTakesNoConnectionIsNotWaitedForForEver) {
  const std::string path = folder_ + "/full";
  auto listener = ListenLocal(path);
  ASSERT_TRUE(listener.ok());
  ASSERT_EQ(::listen(listener->fd(), 0), 0);
  std::vector<Socket> waiting;
  absl::Status last;
  for (int i = 0; i < 3 && last.ok(); ++i) {
    auto next = ConnectLocal(path, absl::Milliseconds(20));
    last = next.status();
    if (next.ok()) waiting.push_back(*std::move(next));
  }
  EXPECT_EQ(last.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(last.message(), HasSubstr("nobody takes the connection"));
}

TEST_F(LocalSockets, TheEnvironmentMaySwitchThemOff) {
  EXPECT_TRUE(LocalSocketsAllowed().ok());
  ASSERT_EQ(::setenv("CAUSEWAY_LOCAL_SOCKET", "off", 1), 0);
  EXPECT_EQ(LocalSocketsAllowed().code(), absl::StatusCode::kUnavailable);
  ::unsetenv("CAUSEWAY_LOCAL_SOCKET");
}

}  // namespace
}  // namespace causeway::net
