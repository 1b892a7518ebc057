// Tests of exit statuses: a real child that is killed, and texts of the kernel.
#include "causeway/base/process_exit.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace causeway {
namespace {

std::string StatText(const std::string& name, char state, int start, int exit_code) {
  std::string text = absl::StrCat("17 (", name, ") ", std::string(1, state));
  for (int field = 4; field <= 52; ++field) {
    absl::StrAppend(&text, " ", field == 22 ? start : field == 52 ? exit_code : 0);
  }
  return text + "\n";
}

TEST(ProcessExitTest, TellsHowAChildEndedUntilItIsWaitedFor) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  const uint64_t start = ProcessStart(child);
  EXPECT_NE(start, 0);
  EXPECT_EQ(HowProcessEnded(child, start), "");
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  siginfo_t info;
  ASSERT_EQ(::waitid(P_PID, child, &info, WEXITED | WNOWAIT), 0);
  EXPECT_EQ(HowProcessEnded(child, start), "killed by signal 9 (SIGKILL)");
  EXPECT_EQ(HowProcessEnded(child, start + 1), "");
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_EQ(HowProcessEnded(child, start), "");
}

TEST(ProcessExitTest, ReadsTheKernelsText) {
  EXPECT_EQ(HowProcessEnded(StatText("a) b", 'Z', 5, 3 << 8), 5), "exit status 3");
  EXPECT_EQ(HowProcessEnded(StatText("x", 'Z', 5, 0), 5), "exit status 0");
  EXPECT_EQ(HowProcessEnded(StatText("x", 'R', 5, SIGSEGV), 5), "killed by signal 11 (SIGSEGV)");
  EXPECT_EQ(HowProcessEnded(StatText("x", 'S', 5, 0), 5), "");
  EXPECT_EQ(HowProcessEnded(StatText("x", 'T', 5, SIGSTOP), 5), "");
  EXPECT_EQ(HowProcessEnded("", 5), "");
}

}  // namespace
}  // namespace causeway
