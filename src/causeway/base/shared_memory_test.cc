// Files that change hands, and folders of the dead.
#include "causeway/base/shared_memory.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "absl/strings/str_cat.h"

namespace causeway {
namespace {

class SharedMemoryTest : public ::testing::Test {
 protected:
  SharedMemoryTest() {
    root_ = ::testing::TempDir() + "shared_XXXXXX";
    EXPECT_NE(::mkdtemp(root_.data()), nullptr);
  }
  static bool Exists(const std::string& path) {
    struct stat info;
    return ::stat(path.c_str(), &info) == 0;
  }
  std::string root_;
};

TEST_F(SharedMemoryTest, BytesChangeHandsWithoutACopy) {
  auto folder = SharedFolder::Create(root_);
  ASSERT_TRUE(folder.ok()) << folder.status();
  auto made = SharedFile::Create((*folder)->NewName(), 10000);
  ASSERT_TRUE(made.ok()) << made.status();
  std::memcpy((*made)->mutable_data() + 5000, "hello", 5);
  EXPECT_FALSE((*made)->has_other_names());
  const std::string name = (*folder)->NewName();
  ASSERT_TRUE((*made)->Link(name).ok());
  EXPECT_TRUE((*made)->has_other_names());
  {
    auto got = SharedFile::Open(name, 5000, 5, SharedFile::Name::kRemoveLast);
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(std::string((*got)->data(), 5), "hello");
    EXPECT_TRUE((*made)->has_other_names());
    // What the receiver does to its bytes stays its own.
    (*got)->mutable_data()[0] = 'j';
    EXPECT_EQ((*made)->data()[5000], 'h');
  }
  EXPECT_FALSE((*made)->has_other_names());
  // A name that goes at once, and bytes that outlive their maker.
  ASSERT_TRUE((*made)->Link(name).ok());
  auto kept = SharedFile::Open(name, 0, 10000, SharedFile::Name::kRemoveNow);
  ASSERT_TRUE(kept.ok());
  EXPECT_FALSE(Exists(name));
  const std::string path = (*made)->path();
  made->reset();
  EXPECT_FALSE(Exists(path));
  EXPECT_EQ(std::string((*kept)->data() + 5000, 5), "hello");
}

TEST_F(SharedMemoryTest, WhatIsNotAsPromisedIsRefused) {
  auto folder = SharedFolder::Create(root_);
  auto made = SharedFile::Create((*folder)->NewName(), 100);
  using Name = SharedFile::Name;
  EXPECT_EQ(SharedFile::Open((*made)->path(), 50, 51, Name::kRemoveNow).status().code(),
            absl::StatusCode::kDataLoss);
  EXPECT_TRUE(Exists((*made)->path()));
  EXPECT_EQ(SharedFile::Open((*folder)->NewName(), 0, 1, Name::kRemoveNow).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_FALSE(SharedFile::Open((*folder)->path(), 0, 1, Name::kRemoveNow).ok());
  // More than any machine has.
  EXPECT_FALSE(SharedFile::Create((*folder)->NewName(), int64_t{1} << 60).ok());
  EXPECT_TRUE(SharedFolder::IsFolderOfUser((*folder)->path(), root_));
  EXPECT_FALSE(SharedFolder::IsFolderOfUser(root_, root_));
  EXPECT_FALSE(SharedFolder::IsFolderOfUser((*folder)->path() + "/..", root_));
  EXPECT_FALSE(SharedFolder::IsFolderOfUser("/etc", root_));
}

TEST_F(SharedMemoryTest, TheFoldersOfTheDeadAreRemoved) {
  auto mine = SharedFolder::Create(root_);
  ASSERT_TRUE(mine.ok());
  const pid_t child = ::fork();
  if (child == 0) {
    auto folder = SharedFolder::Create(root_);
    auto file = SharedFile::Create((*folder)->NewName(), 100);
    ::_exit(folder.ok() && file.ok() ? 0 : 1);  // as if killed: nothing is cleaned up
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  EXPECT_EQ(SharedFolder::Sweep(root_), 1);
  EXPECT_EQ(SharedFolder::Sweep(root_), 0);
  const std::string path = (*mine)->path();
  EXPECT_TRUE(Exists(path));
  mine->reset();
  EXPECT_FALSE(Exists(path));
  EXPECT_EQ(SharedFolder::Identity(root_), SharedFolder::Identity(root_));
  EXPECT_EQ(SharedFolder::Identity(root_ + "/missing"), "");
}

TEST_F(SharedMemoryTest, WhatItBeginsWithIsWritten) {
  auto folder = SharedFolder::Create(root_);
  ASSERT_TRUE(folder.ok()) << folder.status();
  const std::string first(5000, 'x');
  auto made = SharedFile::Create((*folder)->NewName(), 10000, first);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(std::string((*made)->data(), 10000), first + std::string(5000, '\0'));
}

TEST_F(SharedMemoryTest, CanBeSwitchedOff) {
  ASSERT_EQ(::setenv("CAUSEWAY_SHARED_MEMORY", "off", 1), 0);
  auto folder = SharedFolder::Create(root_);
  ASSERT_EQ(::unsetenv("CAUSEWAY_SHARED_MEMORY"), 0);
  EXPECT_EQ(folder.status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace causeway
