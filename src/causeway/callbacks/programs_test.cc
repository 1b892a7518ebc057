// Tests of finding a callback group in a program's bytes.
#include "causeway/callbacks/programs.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace causeway::callbacks {
namespace {

const char kToken[] = "0123456789abcdef0123456789abcdef";

TEST(FindGroup, FindsItAnywhere) {
  const std::string name = absl::StrCat("causeway-callbacks:", kToken, ":42;");
  for (const std::string& program :
       {name, absl::StrCat("ML\xef", std::string(3, '\0'), name, std::string(5, '\0')),
        absl::StrCat("causeway-callbacks:short:1; ", name)}) {
    auto found = FindGroup(program);
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->token, kToken);
    EXPECT_EQ(found->group, 42u);
  }
}

TEST(FindGroup, RefusesWhatIsNoGroup) {
  EXPECT_FALSE(FindGroup("").has_value());
  EXPECT_FALSE(FindGroup("module @main {}").has_value());
  EXPECT_FALSE(FindGroup(absl::StrCat("causeway-callbacks:", kToken)).has_value());
  EXPECT_FALSE(FindGroup(absl::StrCat("causeway-callbacks:", kToken, ":;")).has_value());
  EXPECT_FALSE(FindGroup(absl::StrCat("causeway-callbacks:", kToken, ":-1;")).has_value());
  EXPECT_FALSE(
      FindGroup(absl::StrCat("causeway-callbacks:", kToken, ":99999999999999999999;")).has_value());
  EXPECT_FALSE(ParseChannel(absl::StrCat("causeway-callbacks:", kToken, ":1;x")).has_value());
}

}  // namespace
}  // namespace causeway::callbacks
