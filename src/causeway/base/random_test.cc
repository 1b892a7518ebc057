// Tests of the random sources.
#include "causeway/base/random.h"

#include <cctype>
#include <set>

#include "gtest/gtest.h"

namespace causeway {
namespace {

TEST(FakeRandom, OneSeedOneSequence) {
  FakeRandom a(7), b(7), c(8);
  bool differs = false;
  for (int i = 0; i < 100; ++i) {
    const uint64_t value = a.Next();
    EXPECT_EQ(value, b.Next());
    differs |= value != c.Next();
  }
  EXPECT_TRUE(differs);
}

TEST(FakeRandom, IsThePublishedSequence) {
  FakeRandom random(0);
  EXPECT_EQ(random.Next(), 0xe220a8397b1dcdafu);
  EXPECT_EQ(random.Next(), 0x6e789e6aa1b965f4u);
}

TEST(Random, BelowReachesEveryValueAndNoOther) {
  FakeRandom random(1);
  std::set<uint64_t> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(random.Below(7));
  EXPECT_EQ(seen, (std::set<uint64_t>{0, 1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(random.Below(1), 0u);
}

TEST(Random, UnitStaysBelowOne) {
  FakeRandom random(2);
  double sum = 0;
  for (int i = 0; i < 10000; ++i) {
    const double value = random.Unit();
    ASSERT_GE(value, 0.0);
    ASSERT_LT(value, 1.0);
    sum += value;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 0.02);
}

TEST(SystemRandom, TokensAreHexAndDiffer) {
  SystemRandom random;
  const std::string token = random.Token();
  EXPECT_EQ(token.size(), 32u);
  for (char c : token) EXPECT_TRUE(std::isxdigit(static_cast<unsigned char>(c))) << token;
  EXPECT_NE(token, random.Token());
}

}  // namespace
}  // namespace causeway
