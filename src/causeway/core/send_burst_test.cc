// Tests of who writes at the end of a burst.
#include "causeway/core/send_burst.h"

#include <memory>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace causeway::core {
namespace {

class FakeLink : public SendBurst::Link {
 public:
  void WriteQueued() override { ++written; }
  bool HasAnswered() const override { return answered; }
  void HandOver(std::vector<std::shared_ptr<SendBurst::Link>> links) override {
    handed_over = links.size();
  }

  bool answered = true;
  int written = 0;
  size_t handed_over = 0;
};

std::vector<std::shared_ptr<FakeLink>> Links(size_t count) {
  std::vector<std::shared_ptr<FakeLink>> links;
  for (size_t i = 0; i < count; ++i) links.push_back(std::make_shared<FakeLink>());
  return links;
}

TEST(SendBurst, TheSenderWritesToFewLinksAtTheEnd) {
  const auto links = Links(SendBurst::kOwnWritesMax);
  for (const auto& link : links) link->answered = false;
  SendBurst burst;
  for (const auto& link : links) SendBurst::Current()->Add(link);
  for (const auto& link : links) EXPECT_EQ(link->written, 0);
  burst.Release();
  burst.Release();
  for (const auto& link : links) {
    EXPECT_EQ(link->written, 1);
    EXPECT_EQ(link->handed_over, 0);
  }
}

TEST(SendBurst, SomeLinksAreWrittenToByTheSenderOnlyWhenAllHaveAnswered) {
  const auto links = Links(SendBurst::kOwnWritesToIdleMax);
  for (const bool last_answered : {true, false}) {
    links.back()->answered = last_answered;
    SendBurst burst;
    for (const auto& link : links) burst.Add(link);
  }
  for (const auto& link : links) EXPECT_EQ(link->written, 1);
  EXPECT_EQ(links[0]->handed_over, links.size());
}

TEST(SendBurst, ManyLinksAreHandedOverTogether) {
  const auto links = Links(SendBurst::kOwnWritesToIdleMax + 1);
  {
    SendBurst burst;
    for (const auto& link : links) burst.Add(link);
  }
  EXPECT_EQ(links[0]->handed_over, links.size());
  for (const auto& link : links) EXPECT_EQ(link->written, 0);
}

TEST(SendBurst, IsTheThreadsUntilItsReleaseAndTheInnermost) {
  EXPECT_EQ(SendBurst::Current(), nullptr);
  SendBurst outer;
  EXPECT_EQ(SendBurst::Current(), &outer);
  {
    SendBurst inner;
    EXPECT_EQ(SendBurst::Current(), &inner);
  }
  EXPECT_EQ(SendBurst::Current(), &outer);
  outer.Release();
  EXPECT_EQ(SendBurst::Current(), nullptr);
}

}  // namespace
}  // namespace causeway::core
