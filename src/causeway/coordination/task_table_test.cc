// Tests of the table of tasks.
#include "causeway/coordination/task_table.h"

#include <optional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace causeway::coordination {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(TaskTable, AliveIsWhatTheHeadBeganAndNobodyElse) {
  TaskTable table;
  table.Begin(3);
  table.Begin(1);
  table.SetIncarnation(7, 99);  // registers, but the head never heard of it
  EXPECT_THAT(table.Alive(), ElementsAre(1, 3));
  table.End(3, absl::CancelledError("it left"));
  table.End(1000, absl::OkStatus());
  EXPECT_THAT(table.Alive(), ElementsAre(1));
  table.EndAll(absl::AbortedError("the epoch is over"));
  EXPECT_THAT(table.Alive(), IsEmpty());
  const TaskSnapshot snapshot = table.Snapshot();
  ASSERT_EQ(snapshot.tasks.size(), 3u);
  EXPECT_EQ(snapshot.tasks[0].end.message(), "the epoch is over");
  EXPECT_EQ(snapshot.tasks[1].end.message(), "it left");
  EXPECT_EQ(snapshot.tasks[2].incarnation, 99u);
}

TEST(TaskTable, AWatchIsAnsweredOnceTheVersionIsNewer) {
  TaskTable table;
  table.Begin(1);
  std::optional<TaskSnapshot> now, later;
  EXPECT_EQ(table.Watch(-1, [&](absl::StatusOr<TaskSnapshot> s) { now = *s; }), 0u);
  ASSERT_TRUE(now.has_value());
  EXPECT_NE(table.Watch(now->version, [&](absl::StatusOr<TaskSnapshot> s) { later = *s; }), 0u);
  EXPECT_FALSE(later.has_value());
  table.SetIncarnation(1, 5);
  ASSERT_TRUE(later.has_value());
  EXPECT_GT(later->version, now->version);
  EXPECT_EQ(later->tasks[0].incarnation, 5u);
}

TEST(TaskTable, AChangeThatChangesNothingIsNotTold) {
  TaskTable table;
  table.Begin(1);
  table.SetIncarnation(1, 5);
  const int64_t version = table.Snapshot().version;
  table.SetIncarnation(1, 5);
  table.EndAll(absl::OkStatus());
  table.EndAll(absl::OkStatus());
  EXPECT_EQ(table.Snapshot().version, version + 1);
}

TEST(TaskTable, WatchesCanBeDroppedOrFailed) {
  TaskTable table;
  absl::Status failed;
  const uint64_t dropped =
      table.Watch(0, [](absl::StatusOr<TaskSnapshot>) { ADD_FAILURE() << "was dropped"; });
  table.Watch(0, [&](absl::StatusOr<TaskSnapshot> s) { failed = s.status(); });
  EXPECT_TRUE(table.CancelWatch(dropped));
  EXPECT_FALSE(table.CancelWatch(dropped));
  table.FailWatches(absl::CancelledError("over"));
  EXPECT_EQ(failed.message(), "over");
  table.Begin(1);
}

}  // namespace
}  // namespace causeway::coordination
