// Tests of the table of element types.
#include "causeway/model/dtype.h"

#include <set>
#include <string>

#include "gtest/gtest.h"

namespace causeway::model {
namespace {

TEST(DType, NamesAndNumbersAreOneToOne) {
  std::set<std::string> names;
  for (int32_t value = -1; value < 200; ++value) {
    if (!IsKnownDType(value)) continue;
    const DType dtype = static_cast<DType>(value);
    const std::string name(DTypeName(dtype));
    EXPECT_TRUE(names.insert(name).second) << name;
    const absl::StatusOr<DType> back = DTypeFromName(name);
    ASSERT_TRUE(back.ok()) << name;
    EXPECT_EQ(*back, dtype);
  }
  EXPECT_GE(names.size(), 30u);
}

TEST(DType, NamesAreNumPys) {
  EXPECT_EQ(DTypeName(DType::kPred), "bool");
  EXPECT_EQ(DTypeName(DType::kF32), "float32");
  EXPECT_EQ(DTypeName(DType::kBF16), "bfloat16");
  EXPECT_EQ(DTypeName(DType::kC128), "complex128");
  EXPECT_EQ(DTypeName(DType::kF8E4M3FN), "float8_e4m3fn");
  EXPECT_EQ(DTypeFromName("float33").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(DType, WidthsAreOfHostMemory) {
  EXPECT_EQ(HostByteWidth(DType::kPred), 1);
  EXPECT_EQ(HostByteWidth(DType::kS4), 1);
  EXPECT_EQ(HostByteWidth(DType::kBF16), 2);
  EXPECT_EQ(HostByteWidth(DType::kF64), 8);
  EXPECT_EQ(HostByteWidth(DType::kC128), 16);
  EXPECT_EQ(HostByteWidth(DType::kToken), 0);
  EXPECT_EQ(HostByteWidth(DType::kString), -1);
}

TEST(DType, GapsOfTheNumberingAreUnknown) {
  EXPECT_FALSE(IsKnownDType(0));
  EXPECT_FALSE(IsKnownDType(13));
  EXPECT_FALSE(IsKnownDType(-1));
}

}  // namespace
}  // namespace causeway::model
