// Both file systems, by the same expectations; the fake one's failures.
#include "causeway/base/file_system.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace causeway {
namespace {

void ExpectWholeFiles(FileSystem& files, const std::string& root) {
  const std::string directory = root + "/a/b";
  ASSERT_TRUE(files.MakeDirectories(directory).ok());
  ASSERT_TRUE(files.MakeDirectories(directory).ok());
  const std::string path = directory + "/x";
  EXPECT_EQ(files.Read(path).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(files.Remove(path).code(), absl::StatusCode::kNotFound);
  const std::string bytes("zero\0byte", 9);
  ASSERT_TRUE(files.WriteAtomically(path, "older, and longer than that").ok());
  ASSERT_TRUE(files.WriteAtomically(path, bytes).ok());
  EXPECT_EQ(*files.Read(path), bytes);
  ASSERT_TRUE(files.Touch(path).ok());
  auto listed = files.List(directory);
  ASSERT_TRUE(listed.ok()) << listed.status();
  ASSERT_EQ(listed->size(), 1);
  EXPECT_EQ((*listed)[0].name, "x");
  EXPECT_EQ((*listed)[0].bytes, 9);
  ASSERT_TRUE(files.Remove(path).ok());
  EXPECT_TRUE(files.List(directory)->empty());
}

TEST(FileSystemTest, RealFilesAreReplacedWhole) {
  std::string root = ::testing::TempDir() + "file_system_XXXXXX";
  ASSERT_NE(::mkdtemp(root.data()), nullptr);
  RealFileSystem files;
  ExpectWholeFiles(files, root);
  // A directory that cannot be, with its path in the message.
  ASSERT_TRUE(files.WriteAtomically(root + "/plain", "file").ok());
  const absl::Status refused = files.MakeDirectories(root + "/plain/below");
  EXPECT_FALSE(refused.ok());
  EXPECT_THAT(std::string(refused.message()), ::testing::HasSubstr("/plain"));
  EXPECT_FALSE(files.WriteAtomically(root + "/missing/file", "x").ok());
}

TEST(FileSystemTest, FakeFilesBehaveLikeRealOnesUntilTheyFail) {
  FakeClock clock;
  FakeFileSystem files(clock);
  ExpectWholeFiles(files, "/root");
  files.SetCapacity(10);
  EXPECT_EQ(files.WriteAtomically("/root/f", "eleven byte").code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(files.Exists("/root/f"));
  EXPECT_TRUE(files.WriteAtomically("/root/f", "ten bytes.").ok());
  EXPECT_TRUE(files.FlipByte("/root/f", 0));
  EXPECT_EQ(*files.Read("/root/f"), "uen bytes.");
  files.FailReads(absl::UnavailableError("gone"));
  EXPECT_EQ(files.Read("/root/f").status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace causeway
