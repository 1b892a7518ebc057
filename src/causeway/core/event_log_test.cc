// Tests of the event log: order, gaps, waiting.
#include "causeway/core/event_log.h"

#include <thread>

#include "gtest/gtest.h"

namespace causeway::core {
namespace {

ClusterEvent Lost(int slice) {
  ClusterEvent event;
  event.kind = "lost";
  event.slice = slice;
  return event;
}

TEST(EventLogTest, GivesWhatCameAfterANumber) {
  EventLog log(8);
  EXPECT_EQ(log.After(0, absl::ZeroDuration()).next, 0);
  for (int slice = 0; slice < 3; ++slice) log.Append(Lost(slice));
  const EventBatch batch = log.After(1, absl::ZeroDuration());
  ASSERT_EQ(batch.events.size(), 2);
  EXPECT_EQ(batch.events[0].number, 2);
  EXPECT_EQ(batch.events[1].slice, 2);
  EXPECT_EQ(batch.next, 3);
  EXPECT_EQ(batch.missed, 0);
  EXPECT_TRUE(log.After(batch.next, absl::ZeroDuration()).events.empty());
}

TEST(EventLogTest, TellsHowManyAreForgotten) {
  EventLog log(2);
  for (int slice = 0; slice < 5; ++slice) log.Append(Lost(slice));
  const EventBatch batch = log.After(1, absl::ZeroDuration());
  EXPECT_EQ(batch.missed, 2);  // 2 and 3
  ASSERT_EQ(batch.events.size(), 2);
  EXPECT_EQ(batch.events[0].number, 4);
  EXPECT_EQ(log.After(3, absl::ZeroDuration()).missed, 0);
}

TEST(EventLogTest, ANumberOfAnEarlierHeadMeansFromTheBeginning) {
  EventLog log(8);
  log.Append(Lost(0));
  EXPECT_EQ(log.After(70, absl::ZeroDuration()).events.size(), 1);
}

TEST(EventLogTest, AWaitEndsWithTheNextEventAndWithTheLog) {
  EventLog log(8);
  EventBatch batch;
  std::thread watcher([&] { batch = log.After(0, absl::Minutes(1)); });
  log.Append(Lost(4));
  watcher.join();
  ASSERT_EQ(batch.events.size(), 1);
  EXPECT_EQ(batch.events[0].slice, 4);
  std::thread late([&] { batch = log.After(1, absl::Minutes(1)); });
  log.Close();
  late.join();
  EXPECT_TRUE(batch.events.empty());
}

}  // namespace
}  // namespace causeway::core
