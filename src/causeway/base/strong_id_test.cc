// Tests of the distinct id types.
#include "causeway/base/strong_id.h"

#include <sstream>
#include <type_traits>

#include "absl/container/flat_hash_set.h"
#include "gtest/gtest.h"

namespace causeway {
namespace {

static_assert(!std::is_convertible_v<int32_t, DeviceId>);
static_assert(!std::is_convertible_v<WorkerId, DeviceId>);
static_assert(!std::is_constructible_v<BufferId, ProgramId>);

TEST(StrongId, ComparesHashesAndPrints) {
  EXPECT_LT(DeviceId(2), DeviceId(10));
  EXPECT_EQ(DeviceId(), DeviceId(0));
  absl::flat_hash_set<BufferId> set = {BufferId(1), BufferId(2), BufferId(1)};
  EXPECT_EQ(set.size(), 2u);
  EXPECT_TRUE(set.contains(BufferId(2)));
  std::ostringstream out;
  out << WorkerId(7);
  EXPECT_EQ(out.str(), "7");
}

}  // namespace
}  // namespace causeway
