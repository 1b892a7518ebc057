// Cutting and joining arrays of text.
#include "causeway/wire/text_array.h"

#include <gtest/gtest.h>

namespace causeway::wire {
namespace {

const model::Shape kShape = {2, 3};
const std::vector<std::string> kWords = {"a", "", "ccc", "dd", std::string("\0e", 2), "f"};

TEST(TextArrayTest, RoundTrip) {
  const auto words = ParseText(EncodeText(kWords), kShape);
  ASSERT_TRUE(words.ok()) << words.status();
  EXPECT_EQ(*words, kWords);
}

TEST(TextArrayTest, ScalarsAndEmptyArrays) {
  EXPECT_EQ(ParseText(EncodeText({"one"}), {})->size(), 1u);
  EXPECT_TRUE(ParseText("", {0, 4})->empty());
}

TEST(TextArrayTest, CutsABox) {
  const auto column = CutText(EncodeText(kWords), kShape, {{0, 1}, {2, 3}});
  ASSERT_TRUE(column.ok()) << column.status();
  EXPECT_EQ(*ParseText(*column, {2, 2}),
            (std::vector<std::string>{"", "ccc", std::string("\0e", 2), "f"}));
}

TEST(TextArrayTest, JoinsWhatWasCut) {
  const std::string bytes = EncodeText(kWords);
  std::vector<std::pair<model::Box, std::string>> parts;
  for (int64_t column = 0; column < 3; ++column) {
    const model::Box box{{0, column}, {2, column + 1}};
    parts.emplace_back(box, *CutText(bytes, kShape, box));
  }
  EXPECT_EQ(*JoinText(kShape, parts), bytes);
}

TEST(TextArrayTest, RefusesWhatDoesNotFit) {
  EXPECT_EQ(ParseText(EncodeText(kWords), {5}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(ParseText("\xff\xff", {1}).ok());
  EXPECT_FALSE(CutText(EncodeText(kWords), kShape, {{0, 1}, {2, 4}}).ok());
  EXPECT_FALSE(CutText(EncodeText(kWords), kShape, {{0}, {2}}).ok());
  EXPECT_FALSE(JoinText(kShape, {{{{0, 0}, {1, 3}}, EncodeText({"x"})}}).ok());
}

TEST(TextArrayTest, AShapeAloneTakesNoMemory) {
  const int64_t most = int64_t{1} << 40;
  const auto joined = JoinText({most}, {{{{0}, {1}}, EncodeText({"x"})}});
  EXPECT_EQ(joined.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace causeway::wire
