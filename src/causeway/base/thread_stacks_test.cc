// Tests: the stack of a thread that waits is told, with names.
#include "causeway/base/thread_stacks.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <thread>

#include "absl/synchronization/notification.h"

namespace causeway {

// Not in the nameless namespace, and not inlined: it is to be found by its name.
__attribute__((noinline)) void WaitsForTheTest(absl::Notification* begun,
                                               absl::Notification* over) {
  ::pthread_setname_np(::pthread_self(), "the-waiter");
  begun->Notify();
  over->WaitForNotification();
  asm volatile("");  // so the wait is not the last thing here
}

TEST(ThreadStacks, NamesWhatAThreadIsAt) {
  absl::Notification begun, over;
  std::thread one(WaitsForTheTest, &begun, &over);
  begun.WaitForNotification();
  const std::string text = ThreadStacks(absl::Seconds(30));
  const std::string without_names = ThreadStacks(absl::ZeroDuration());
  over.Notify();
  one.join();
  EXPECT_NE(text.find("1 of 1 threads told their stack"), std::string::npos) << text;
  EXPECT_NE(text.find("the-waiter:"), std::string::npos) << text;
  EXPECT_NE(text.find("WaitsForTheTest"), std::string::npos) << text;
  EXPECT_EQ(without_names.find("WaitsForTheTest"), std::string::npos) << without_names;
}

}  // namespace causeway
