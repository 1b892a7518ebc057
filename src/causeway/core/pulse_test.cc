// Tests of the heartbeats' verdict: how soon, and who is spared.
#include "causeway/core/pulse.h"

#include <optional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace causeway::core {
namespace {

using ::testing::HasSubstr;

constexpr absl::Duration kBeat = absl::Seconds(5);

class PulseTest : public ::testing::Test {
 protected:
  // Beats that are answered after `took`.
  void Live(int beats, absl::Duration took) {
    for (int i = 0; i < beats; ++i) {
      now_ = pulse_.next();
      ASSERT_EQ(pulse_.Check(now_), Pulse::Step::kPing);
      now_ += took;
      pulse_.Answered(pulse_.sent(), now_);
    }
  }
  // From the next ping on nothing is answered: how long until the verdict, and how many pings.
  absl::Duration Silence() {
    now_ = pulse_.next();
    const absl::Time begun = now_;
    pings_ = 0;
    for (int i = 0; i < 100; ++i) {
      now_ = std::max(now_, pulse_.next());
      const Pulse::Step step = pulse_.Check(now_);
      if (step == Pulse::Step::kLost) return now_ - begun;
      if (step == Pulse::Step::kPing) ++pings_;
    }
    return absl::InfiniteDuration();
  }

  absl::Time now_ = absl::UnixEpoch();
  Pulse pulse_{kBeat, 3, absl::UnixEpoch()};
  int pings_ = 0;
};

TEST_F(PulseTest, WhoIsUnknownHasThreeBeats) {
  EXPECT_EQ(Silence(), 3 * kBeat);
  EXPECT_EQ(pings_, 3);
  EXPECT_THAT(pulse_.why(), HasSubstr("none of 3 heartbeats within 15s"));
}

TEST_F(PulseTest, WhoAnswersFastIsMissedSoon) {
  Live(20, absl::Milliseconds(2));
  EXPECT_EQ(pulse_.deadline(), Pulse::kFloor);
  EXPECT_EQ(Silence(), 3 * Pulse::kFloor);
  EXPECT_EQ(pings_, 3);
  EXPECT_THAT(pulse_.why(), HasSubstr("none of 3 heartbeats within 3s"));
}

TEST_F(PulseTest, WhoIsSometimesSlowHasMoreTime) {
  Live(20, absl::Milliseconds(2));
  Live(1, absl::Milliseconds(900));
  EXPECT_GE(pulse_.deadline(), absl::Milliseconds(2600));
  Live(60, absl::Milliseconds(2));
  EXPECT_EQ(pulse_.deadline(), Pulse::kFloor);
  Live(5, absl::Seconds(4));
  EXPECT_EQ(pulse_.deadline(), kBeat);
  EXPECT_EQ(Silence(), 3 * kBeat);
}

TEST_F(PulseTest, ALateAnswerEndsTheSuspicion) {
  Live(20, absl::Milliseconds(2));
  now_ = pulse_.next();
  ASSERT_EQ(pulse_.Check(now_), Pulse::Step::kPing);
  now_ = pulse_.next();
  ASSERT_EQ(pulse_.Check(now_), Pulse::Step::kPing);
  pulse_.Answered(pulse_.sent() - 1, now_ + absl::Milliseconds(100));
  EXPECT_GT(pulse_.deadline(), absl::Seconds(3));
  pulse_.Answered(pulse_.sent(), now_ + absl::Milliseconds(101));
  // Back to beats.
  EXPECT_EQ((pulse_.next() - absl::UnixEpoch()) % kBeat, absl::ZeroDuration());
  // Answers to what was never asked, or twice, are none.
  pulse_.Answered(pulse_.sent() + 7, now_);
  pulse_.Answered(1, now_);
  EXPECT_EQ(Silence(), 3 * pulse_.deadline());
}

TEST_F(PulseTest, OtherWordsCountAsLifeForThreeBeats) {
  Live(20, absl::Milliseconds(2));
  now_ = pulse_.next();
  const absl::Time begun = now_;
  std::optional<absl::Time> lost;
  for (; !lost.has_value() && now_ < begun + absl::Minutes(1); now_ += absl::Milliseconds(100)) {
    pulse_.Heard(now_);  // it is sending, but no answer gets through
    if (pulse_.Check(now_) == Pulse::Step::kLost) lost = now_;
  }
  EXPECT_EQ(lost, begun + 3 * kBeat);
}

TEST_F(PulseTest, WhoLooksTooLateJudgesNobody) {
  Live(20, absl::Milliseconds(2));
  now_ = pulse_.next();
  ASSERT_EQ(pulse_.Check(now_), Pulse::Step::kPing);
  now_ += absl::Minutes(1);  // the head itself stood still
  ASSERT_EQ(pulse_.Check(now_), Pulse::Step::kNothing);
  pulse_.Answered(pulse_.sent(), now_ + absl::Milliseconds(1));
  EXPECT_EQ(pulse_.Check(pulse_.next()), Pulse::Step::kPing);
}

TEST_F(PulseTest, ShortBeatsAreWaitedForInFull) {
  pulse_ = Pulse(absl::Milliseconds(200), 3, now_);
  Live(20, absl::Milliseconds(1));
  EXPECT_EQ(Silence(), absl::Milliseconds(600));
}

}  // namespace
}  // namespace causeway::core
