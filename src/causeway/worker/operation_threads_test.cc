// Tests: who reads, who runs, in what order, and that nothing waits for a run that lasts.
#include "causeway/worker/operation_threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

namespace causeway::worker {
namespace {

constexpr absl::Duration kLong = absl::Seconds(30);

// Delivers by calling what a test gives it.
class ScriptedSource : public OperationThreads::Source {
 public:
  using Delivery = std::function<void()>;

  void Give(Delivery delivery) {
    absl::MutexLock lock(&mu_);
    deliveries_.push_back(std::move(delivery));
  }
  void End() {
    absl::MutexLock lock(&mu_);
    ended_ = true;
  }

  Result Read(bool wait) override {
    EXPECT_FALSE(reading_.exchange(true)) << "two threads read at once";
    Delivery delivery;
    Result result = Result::kSome;
    {
      absl::MutexLock lock(&mu_);
      auto due = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return ended_ || !deliveries_.empty();
      };
      if (wait) mu_.Await(absl::Condition(&due));
      if (!deliveries_.empty()) {
        delivery = std::move(deliveries_.front());
        deliveries_.pop_front();
      } else {
        result = ended_ ? Result::kEnd : Result::kNothing;
      }
    }
    if (delivery != nullptr) delivery();
    reading_ = false;
    return result;
  }

 private:
  absl::Mutex mu_;
  std::deque<Delivery> deliveries_ ABSL_GUARDED_BY(mu_);
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  std::atomic<bool> reading_{false};
};

class OperationThreadsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto threads = OperationThreads::Start(
        {.run =
             [this](OperationThreads::Work& work) {
               EXPECT_FALSE(running_.exchange(true)) << "two operations run at once";
               work();
               running_ = false;
             },
         .idle =
             [this] {
               absl::MutexLock lock(&mu_);
               idle_ = true;
             },
         .tick = [] {}},
        /*patience=*/absl::Milliseconds(2));
    ASSERT_TRUE(threads.ok()) << threads.status();
    threads_ = *std::move(threads);
    server_ = std::thread([this] { threads_->Serve(&source_); });
  }
  void TearDown() override {
    source_.End();
    server_.join();
    threads_->Stop();
  }

  std::atomic<bool> running_{false};
  absl::Mutex mu_;
  bool idle_ ABSL_GUARDED_BY(mu_) = false;
  ScriptedSource source_;
  std::unique_ptr<OperationThreads> threads_;
  std::thread server_;
};

// The other thread may be awake by chance, but nobody wakes it.
TEST_F(OperationThreadsTest, WhatIsReadRunsOnTheThreadThatHasReadIt) {
  constexpr int kCommands = 200;
  int on_the_reader = 0;
  for (int i = 0; i < kCommands; ++i) {
    absl::Notification done;
    source_.Give([&] {
      threads_->Post([&, reader = std::this_thread::get_id()] {
        if (reader == std::this_thread::get_id()) ++on_the_reader;
        done.Notify();
      });
    });
    ASSERT_TRUE(done.WaitForNotificationWithTimeout(kLong));
  }
  EXPECT_GT(on_the_reader, kCommands / 2);
}

TEST_F(OperationThreadsTest, PostedWorkRunsWhileTheReaderWaits) {
  absl::Notification done;
  threads_->Post([&] { done.Notify(); });
  EXPECT_TRUE(done.WaitForNotificationWithTimeout(kLong));
}

TEST_F(OperationThreadsTest, ReadingGoesOnWhileAnOperationLasts) {
  for (int round = 0; round < 5; ++round) {
    absl::Notification aborted, done;
    source_.Give([&] {
      threads_->Post([&] {
        EXPECT_TRUE(aborted.WaitForNotificationWithTimeout(kLong));
        done.Notify();
      });
    });
    source_.Give([&] { aborted.Notify(); });
    ASSERT_TRUE(done.WaitForNotificationWithTimeout(kLong));
  }
}

TEST_F(OperationThreadsTest, ASourceMayWaitForWhatItHasPosted) {
  absl::Notification done;
  source_.Give([&] {
    absl::Notification ran;
    threads_->Post([&] { ran.Notify(); });
    threads_->RunElsewhere();
    EXPECT_TRUE(ran.WaitForNotificationWithTimeout(kLong));
    done.Notify();
  });
  EXPECT_TRUE(done.WaitForNotificationWithTimeout(kLong));
}

TEST_F(OperationThreadsTest, KeepsTheOrderWhoeverReadsAndRuns) {
  constexpr int kCommands = 2000;
  std::vector<int> order;
  int delivered = 0;  // guarded by mu_
  absl::Notification done;
  std::atomic<bool> over{false};
  std::thread others([&] {
    while (!over) {
      threads_->Post([] {});
      std::this_thread::yield();
    }
  });
  for (int i = 0; i < kCommands; ++i) {
    source_.Give([&, i] {
      {
        absl::MutexLock lock(&mu_);
        ++delivered;
      }
      threads_->Post([&, i] {
        order.push_back(i);
        if (i % 200 == 0) {
          // Reading and running change hands: this one waits for the next one's delivery.
          auto next = [&] { return delivered > i + 1; };
          absl::MutexLock lock(&mu_);
          EXPECT_TRUE(mu_.AwaitWithTimeout(absl::Condition(&next), kLong));
        }
        if (i + 1 == kCommands) done.Notify();
      });
    });
  }
  ASSERT_TRUE(done.WaitForNotificationWithTimeout(kLong));
  over = true;
  others.join();
  ASSERT_EQ(order.size(), static_cast<size_t>(kCommands));
  for (int i = 0; i < kCommands; ++i) ASSERT_EQ(order[i], i);
}

TEST_F(OperationThreadsTest, IsIdleOnceNothingIsLeft) {
  absl::Notification done;
  source_.Give([&] {
    threads_->Post([&] {
      {
        absl::MutexLock lock(&mu_);
        idle_ = false;
      }
      done.Notify();
    });
  });
  ASSERT_TRUE(done.WaitForNotificationWithTimeout(kLong));
  absl::MutexLock lock(&mu_);
  EXPECT_TRUE(mu_.AwaitWithTimeout(absl::Condition(&idle_), kLong));
}

TEST_F(OperationThreadsTest, ServesOneStreamAfterAnother) {
  source_.End();
  server_.join();
  ScriptedSource next;
  absl::Notification done;
  next.Give([&] { threads_->Post([&] { done.Notify(); }); });
  server_ = std::thread([&] { threads_->Serve(&next); });
  EXPECT_TRUE(done.WaitForNotificationWithTimeout(kLong));
  next.End();
  server_.join();
  server_ = std::thread([] {});
}

}  // namespace
}  // namespace causeway::worker
