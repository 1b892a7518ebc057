// Tests of which threads of a pool run, and when the others do.
#include "causeway/device/held_threads.h"

#include <pthread.h>

#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace causeway::device {
namespace {

constexpr char kOperations[] = "tf_XLAEigen";

// A pool as XLA has them: who makes a thread names it, and at the end no thread goes before all
// have come.
class Pool {
 public:
  ~Pool() { End(); }

  void Make(int size, const char* name) {
    for (int i = 0; i < size; ++i) {
      pthread_t thread{};
      ASSERT_EQ(::pthread_create(&thread, nullptr, &Pool::Run, this), 0);
      {
        absl::MutexLock lock(&mu_);
        threads_.push_back(thread);
      }
      if (name != nullptr) { ASSERT_EQ(::pthread_setname_np(thread, name), 0); }
    }
  }
  void End() {
    {
      absl::MutexLock lock(&mu_);
      end_ = true;
    }
    for (const pthread_t thread : threads_) ::pthread_join(thread, nullptr);
    absl::MutexLock lock(&mu_);
    EXPECT_EQ(begun_, static_cast<int>(threads_.size()));
    threads_.clear();
    begun_ = 0;
  }
  // So many threads have begun, and no more.
  bool Reaches(int begun) {
    absl::MutexLock lock(&mu_);
    const auto reached = [&] { return begun_ >= begun; };
    (void)mu_.AwaitWithTimeout(absl::Condition(&reached), absl::Seconds(60));
    return begun_ == begun;
  }

 private:
  static void* Run(void* self) {
    static_cast<Pool*>(self)->Work();
    return nullptr;
  }
  void Work() {
    absl::MutexLock lock(&mu_);
    ++begun_;
    const auto over = [&] { return end_ && begun_ == static_cast<int>(threads_.size()); };
    mu_.Await(absl::Condition(&over));
  }

  absl::Mutex mu_;
  std::vector<pthread_t> threads_;
  int begun_ = 0;
  bool end_ = false;
};

// Makes a pool in a scope. In place of XLA, this program does it.
void MakeKeepingBack(Pool& pool, int running, int size, const char* name = kOperations) {
  ASSERT_TRUE(KeepThreadsBack(running, ""));
  pool.Make(size, name);
  KeepThreadsBack(0, "");
}

TEST(HeldThreads, AsManyRunAsWereAskedForAndTheRestWhenThePoolEnds) {
  Pool pool, other;
  ASSERT_TRUE(KeepThreadsBack(2, ""));
  pool.Make(8, kOperations);
  other.Make(8, "tf_Launches");
  KeepThreadsBack(0, "");
  EXPECT_TRUE(other.Reaches(8));
  EXPECT_TRUE(pool.Reaches(2));
  EXPECT_EQ(ThreadsKeptBack(), 6);
  other.End();
  EXPECT_EQ(ThreadsKeptBack(), 6);
  pool.End();
  EXPECT_EQ(ThreadsKeptBack(), 0);
}

TEST(HeldThreads, EveryPoolHasItsOwn) {
  Pool first, second;
  MakeKeepingBack(first, 3, 4);
  MakeKeepingBack(second, 3, 4);
  EXPECT_TRUE(first.Reaches(3));
  EXPECT_TRUE(second.Reaches(3));
  first.End();
  EXPECT_EQ(ThreadsKeptBack(), 1);
  EXPECT_TRUE(second.Reaches(3));
}

TEST(HeldThreads, WhatIsMadeOutsideOrIsNotNamedRuns) {
  Pool outside, unnamed;
  outside.Make(3, kOperations);
  EXPECT_TRUE(outside.Reaches(3));
  MakeKeepingBack(unnamed, 1, 3, /*name=*/nullptr);
  EXPECT_TRUE(unnamed.Reaches(3));
  EXPECT_EQ(ThreadsKeptBack(), 0);
}

TEST(HeldThreads, TheyAreLetGoForGood) {
  Pool pool;
  MakeKeepingBack(pool, 1, 4);
  EXPECT_TRUE(pool.Reaches(1));
  LetThreadsRun();
  EXPECT_TRUE(pool.Reaches(4));
  EXPECT_EQ(ThreadsKeptBack(), 0);
}

TEST(HeldThreads, TheyAreLetGoWhenThoseThatRunAreNotEnough) {
  Pool pool;
  MakeKeepingBack(pool, 1, 4);
  const XlaWait wait;
  EXPECT_TRUE(pool.Reaches(4));
}

}  // namespace
}  // namespace causeway::device
