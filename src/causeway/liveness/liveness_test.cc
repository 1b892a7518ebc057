// Tests of the two ends together: a killed process is heard of, once, whatever memory it has.
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "causeway/net/sockets.h"
#include "causeway/liveness/death_watch.h"
#include "causeway/liveness/sentinel.h"
#include "gtest/gtest.h"

namespace causeway::liveness {
namespace {

constexpr absl::Duration kBound = absl::Seconds(20);

class LivenessTest : public ::testing::Test {
 protected:
  // Forked before this process has threads.
  LivenessTest() {
    EXPECT_EQ(::pipe(to_child_), 0);
    EXPECT_EQ(::pipe(from_child_), 0);
    child_ = ::fork();
    if (child_ == 0) Child();
    auto watch = DeathWatch::Start("127.0.0.1");
    EXPECT_TRUE(watch.ok()) << watch.status();
    watch_ = *std::move(watch);
  }
  ~LivenessTest() override {
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
    for (int fd : {to_child_[0], to_child_[1], from_child_[0], from_child_[1]}) ::close(fd);
  }

  // Starts a sentinel at the port that it is told, and says when it stands: when that thread has
  // one descriptor, the connection, and sleeps.
  [[noreturn]] void Child() {
    int port = 0;
    if (::read(to_child_[0], &port, sizeof port) != sizeof port) ::_exit(1);
    StartSentinel("127.0.0.1:" + std::to_string(port), "token-of-this-life");
    for (int seen = 0; seen < 3;) {
      ::poll(nullptr, 0, 5);
      seen = Stands() ? seen + 1 : 0;
    }
    [[maybe_unused]] const ssize_t told = ::write(from_child_[1], "x", 1);
    while (true) ::pause();
  }
  static bool Stands() {
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      std::error_code gone;
      int open = 0;
      for ([[maybe_unused]] const auto& fd :
           std::filesystem::directory_iterator(task.path() / "fd", gone)) {
        ++open;
      }
      std::string stat;
      std::getline(std::ifstream(task.path() / "stat"), stat);
      if (open == 1 && stat.find("(sentinel) S") != std::string::npos) return true;
    }
    return false;
  }
  void StartChild(int port) {
    ASSERT_EQ(::write(to_child_[1], &port, sizeof port), static_cast<ssize_t>(sizeof port));
    char ready;
    ASSERT_EQ(::read(from_child_[0], &ready, 1), 1);
  }

  int to_child_[2], from_child_[2];
  pid_t child_ = 0;
  std::unique_ptr<DeathWatch> watch_;
};

TEST_F(LivenessTest, AKilledProcessIsHeardOfOnce) {
  absl::Notification ended;
  watch_->Expect("token-of-this-life", [&] { ended.Notify(); });
  StartChild(watch_->port());
  EXPECT_FALSE(ended.HasBeenNotified());
  ::kill(child_, SIGKILL);
  EXPECT_TRUE(ended.WaitForNotificationWithTimeout(kBound));
}

TEST_F(LivenessTest, WhoIsForgottenIsNotReported) {
  bool ended = false;
  absl::Notification other;
  watch_->Expect("token-of-this-life", [&] { ended = true; });
  watch_->Expect("another", [&] { other.Notify(); });
  StartChild(watch_->port());
  watch_->Forget("token-of-this-life");
  ::kill(child_, SIGKILL);
  {
    auto socket = net::Connect("127.0.0.1", watch_->port());
    ASSERT_TRUE(socket.ok());
    ASSERT_EQ(::write(socket->fd(), "another\n", 8), 8);
    auto nonsense = net::Connect("127.0.0.1", watch_->port());
    ASSERT_TRUE(nonsense.ok());
    const std::string noise(4096, 'n');
    ASSERT_GT(::write(nonsense->fd(), noise.data(), noise.size()), 0);
  }
  // The thread that reports has been past the other's end by then.
  EXPECT_TRUE(other.WaitForNotificationWithTimeout(kBound));
  watch_ = nullptr;
  EXPECT_FALSE(ended);
}

}  // namespace
}  // namespace causeway::liveness
