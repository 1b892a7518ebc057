// What is found again, what is not, and what a bad disk costs.
#include "causeway/controller/program_files.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "absl/synchronization/notification.h"
#include "causeway/controller/compile_cache.h"

namespace causeway::controller {
namespace {

class ProgramFilesTest : public ::testing::Test {
 protected:
  ProgramFiles Open(int64_t max_bytes = 1 << 20) { return {"/cache", max_bytes, disk_, clock_}; }
  static std::string Path(const std::string& key) {
    return "/cache/" + ProgramFiles::Digest(key) + ".program";
  }
  FakeClock clock_;
  FakeFileSystem disk_{clock_};
};

TEST_F(ProgramFilesTest, AnotherHeadFindsWhatOneStored) {
  const std::string digest = ProgramFiles::Digest("program");
  EXPECT_EQ(digest.size(), 64);
  EXPECT_NE(digest, ProgramFiles::Digest("program2"));
  Open().Store(digest, "compiled");
  ProgramFiles later = Open();
  EXPECT_EQ(later.status().files, 1);
  EXPECT_EQ(later.Find(digest), "compiled");
  EXPECT_EQ(later.Find(ProgramFiles::Digest("other")), std::nullopt);
  EXPECT_EQ(later.status().hits, 1);
  EXPECT_EQ(later.status().misses, 1);
  EXPECT_EQ(later.status().errors, 0);
}

TEST_F(ProgramFilesTest, EveryDamagedByteIsNoticedAndTheFileGoes) {
  ProgramFiles files = Open();
  const std::string digest = ProgramFiles::Digest("p");
  files.Store(digest, "compiled");
  const size_t size = disk_.Read(Path("p"))->size();
  for (size_t at = 0; at < size; ++at) {
    files.Store(digest, "compiled");
    ASSERT_TRUE(disk_.FlipByte(Path("p"), at));
    EXPECT_EQ(files.Find(digest), std::nullopt) << at;
    EXPECT_FALSE(disk_.Exists(Path("p"))) << at;
  }
  EXPECT_EQ(files.status().dropped, static_cast<int64_t>(size));
  // Cut short, empty, or another program's.
  files.Store(digest, "compiled");
  const std::string whole = *disk_.Read(Path("p"));
  for (const std::string& bytes : {std::string(), whole.substr(0, 10), whole.substr(0, size - 1)}) {
    disk_.Plant(Path("p"), bytes);
    EXPECT_EQ(files.Find(digest), std::nullopt);
  }
  disk_.Plant(Path("q"), whole);
  EXPECT_EQ(files.Find(ProgramFiles::Digest("q")), std::nullopt);
}

TEST_F(ProgramFilesTest, TheLeastRecentlyUsedGoFirst) {
  const std::string body(1000, 'x');
  ProgramFiles files = Open(3500);
  auto put = [&](const std::string& key) {
    files.Store(ProgramFiles::Digest(key), body);
    clock_.Advance(absl::Seconds(1));
  };
  put("a");
  put("b");
  put("c");
  EXPECT_TRUE(files.Find(ProgramFiles::Digest("a")).has_value());
  clock_.Advance(absl::Seconds(1));
  put("d");
  EXPECT_TRUE(disk_.Exists(Path("a")));
  EXPECT_FALSE(disk_.Exists(Path("b")));
  EXPECT_TRUE(disk_.Exists(Path("c")));
  EXPECT_EQ(files.status().evicted, 1);
  EXPECT_LE(files.status().bytes, 3500);
  // A smaller budget takes hold when the next head starts, and what is too large is not kept.
  ProgramFiles small = Open(1500);
  EXPECT_EQ(small.status().files, 1);
  small.Store(ProgramFiles::Digest("large"), std::string(2000, 'x'));
  EXPECT_FALSE(disk_.Exists(Path("large")));
  EXPECT_TRUE(disk_.Exists(Path("d")));
}

TEST_F(ProgramFilesTest, AFullOrLostDiskCostsNothingButTheCache) {
  ProgramFiles files = Open();
  const std::string digest = ProgramFiles::Digest("p");
  disk_.SetCapacity(3);
  files.Store(digest, "compiled");
  EXPECT_EQ(files.status().errors, 1);
  EXPECT_NE(files.status().last_error.find("No space left"), std::string::npos);
  EXPECT_EQ(files.Find(digest), std::nullopt);
  disk_.SetCapacity(1 << 20);
  files.Store(digest, "compiled");
  EXPECT_EQ(files.Find(digest), "compiled");
  disk_.FailReads(absl::UnavailableError("the disk is gone"));
  disk_.FailWrites(absl::UnavailableError("the disk is gone"));
  EXPECT_EQ(files.Find(digest), std::nullopt);
  files.Store(digest, "compiled");
  EXPECT_EQ(files.status().last_error, "the disk is gone");
  EXPECT_EQ(Open().Find(digest), std::nullopt);
}

TEST_F(ProgramFilesTest, LeftoversOfAKilledHeadGoAfterAWhile) {
  disk_.Plant(Path("p") + ".partial.1.0", "half of it");
  Open();
  EXPECT_TRUE(disk_.Exists(Path("p") + ".partial.1.0"));  // it may still be writing
  clock_.Advance(absl::Hours(2));
  Open();
  EXPECT_FALSE(disk_.Exists(Path("p") + ".partial.1.0"));
}

TEST_F(ProgramFilesTest, TheThreadAnswersInOrderAndAfterStopNothingIsFound) {
  DiskCompileCache cache(Open());
  cache.Store("key", "compiled");
  absl::Notification done;
  cache.Find("key", [&](std::optional<std::string> contents) {
    EXPECT_EQ(contents, "compiled");
    done.Notify();
  });
  ASSERT_TRUE(done.WaitForNotificationWithTimeout(absl::Seconds(30)));
  EXPECT_EQ(cache.Status().hits, 1);
  cache.Stop();
  bool asked = false;
  cache.Find("key", [&](std::optional<std::string> contents) {
    EXPECT_FALSE(contents.has_value());
    asked = true;
  });
  EXPECT_TRUE(asked);
}

}  // namespace
}  // namespace causeway::controller
