// Tests of the barriers, in time that stands still.
#include "causeway/coordination/barriers.h"

#include <map>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace causeway::coordination {
namespace {

using ::testing::HasSubstr;

class BarriersTest : public ::testing::Test {
 protected:
  uint64_t Arrive(int task, std::vector<int> tasks = {}, int64_t counter = 1) {
    return barriers_.Arrive({"b", counter}, task, std::move(tasks), absl::Seconds(10),
                            [this, task](absl::Status status) {
                              EXPECT_FALSE(answers_.contains(task)) << "answered twice";
                              answers_[task] = std::move(status);
                            });
  }
  std::string Message(int task) { return std::string(answers_[task].message()); }

  FakeClock clock_;
  FakeTimers timers_{clock_};
  TaskTable tasks_;
  Barriers barriers_{timers_, tasks_};
  std::map<int, absl::Status> answers_;
};

TEST_F(BarriersTest, OpensWhenAllHaveArrivedAndStaysOpen) {
  Arrive(1, {1, 2});
  EXPECT_TRUE(answers_.empty());
  Arrive(2, {2, 1});
  EXPECT_TRUE(answers_[1].ok());
  EXPECT_TRUE(answers_[2].ok());
  answers_.clear();
  EXPECT_EQ(Arrive(1, {1, 2}), 0u);
  EXPECT_TRUE(answers_.contains(1) && answers_[1].ok());
  EXPECT_EQ(timers_.pending(), 0);
}

TEST_F(BarriersTest, UsesOfOneIdAreApart) {
  Arrive(1, {1, 2}, 1);
  Arrive(2, {1, 2}, 2);
  EXPECT_TRUE(answers_.empty());
  EXPECT_EQ(barriers_.open(), 2);
}

TEST_F(BarriersTest, NoTasksMeansAllThatWereAliveAtTheFirstArrival) {
  tasks_.Begin(1);
  tasks_.Begin(2);
  Arrive(1);
  tasks_.Begin(3);
  Arrive(3);
  EXPECT_EQ(answers_[3].code(), absl::StatusCode::kInvalidArgument);
  Arrive(2);
  EXPECT_TRUE(answers_[1].ok() && answers_[2].ok());
}

TEST_F(BarriersTest, TheDeadlineNamesTheMissing) {
  Arrive(1, {1, 2, 5});
  timers_.Advance(absl::Seconds(9));
  EXPECT_TRUE(answers_.empty());
  timers_.Advance(absl::Seconds(1));
  EXPECT_EQ(answers_[1].code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(Message(1), HasSubstr("missing are tasks 2, 5"));
  Arrive(2, {1, 2, 5});
  EXPECT_EQ(answers_[2].code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(BarriersTest, AMistakenArrivalIsRefusedAndTheRestGoesOn) {
  Arrive(1, {1, 2});
  Arrive(3, {1, 2});
  EXPECT_EQ(answers_[3].code(), absl::StatusCode::kInvalidArgument);
  answers_.clear();
  Arrive(2, {1, 2, 3});
  EXPECT_THAT(Message(2), HasSubstr("all must name the same"));
  answers_.clear();
  Arrive(2, {1, 2});
  EXPECT_TRUE(answers_[1].ok() && answers_[2].ok());
}

TEST_F(BarriersTest, WhoLeavesHasNotArrived) {
  const uint64_t ticket = Arrive(1, {1, 2});
  EXPECT_TRUE(barriers_.Leave({"b", 1}, ticket));
  EXPECT_FALSE(barriers_.Leave({"b", 1}, ticket));
  Arrive(2, {1, 2});
  EXPECT_TRUE(answers_.empty());
  Arrive(1, {1, 2});
  EXPECT_EQ(answers_.size(), 2u);
}

TEST_F(BarriersTest, CancellingEndsItForThoseBeforeAndAfter) {
  Arrive(1, {1, 2});
  EXPECT_TRUE(barriers_.Cancel({"b", 1}).ok());
  EXPECT_EQ(answers_[1].code(), absl::StatusCode::kCancelled);
  Arrive(2, {1, 2});
  EXPECT_EQ(answers_[2].code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(barriers_.Cancel({"b", 1}).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(BarriersTest, AnEpochsEndFailsAll) {
  Arrive(1, {1, 2}, 1);
  Arrive(2, {1, 2}, 2);
  barriers_.FailAll(absl::AbortedError("slice 1 is lost"));
  EXPECT_EQ(answers_[1].code(), absl::StatusCode::kAborted);
  EXPECT_EQ(answers_[2].code(), absl::StatusCode::kAborted);
  EXPECT_EQ(barriers_.open(), 0);
  EXPECT_EQ(timers_.pending(), 0);
}

}  // namespace
}  // namespace causeway::coordination
