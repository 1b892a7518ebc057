// Table of element types.
#include "causeway/model/dtype.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace causeway::model {
namespace {

struct Row {
  DType dtype;
  const char* name;
  int64_t host_bytes;
};

constexpr Row kRows[] = {
    {DType::kPred, "bool", 1},
    {DType::kS1, "int1", 1},
    {DType::kS2, "int2", 1},
    {DType::kS4, "int4", 1},
    {DType::kS8, "int8", 1},
    {DType::kS16, "int16", 2},
    {DType::kS32, "int32", 4},
    {DType::kS64, "int64", 8},
    {DType::kU1, "uint1", 1},
    {DType::kU2, "uint2", 1},
    {DType::kU4, "uint4", 1},
    {DType::kU8, "uint8", 1},
    {DType::kU16, "uint16", 2},
    {DType::kU32, "uint32", 4},
    {DType::kU64, "uint64", 8},
    {DType::kF16, "float16", 2},
    {DType::kF32, "float32", 4},
    {DType::kF64, "float64", 8},
    {DType::kBF16, "bfloat16", 2},
    {DType::kC64, "complex64", 8},
    {DType::kC128, "complex128", 16},
    {DType::kF8E5M2, "float8_e5m2", 1},
    {DType::kF8E4M3FN, "float8_e4m3fn", 1},
    {DType::kF8E4M3B11FNUZ, "float8_e4m3b11fnuz", 1},
    {DType::kF8E5M2FNUZ, "float8_e5m2fnuz", 1},
    {DType::kF8E4M3FNUZ, "float8_e4m3fnuz", 1},
    {DType::kF8E4M3, "float8_e4m3", 1},
    {DType::kF8E3M4, "float8_e3m4", 1},
    {DType::kF8E8M0FNU, "float8_e8m0fnu", 1},
    {DType::kF4E2M1FN, "float4_e2m1fn", 1},
    {DType::kToken, "token", 0},
    {DType::kString, "string", -1},
};

}  // namespace

bool IsKnownDType(int32_t value) {
  for (const Row& row : kRows) {
    if (static_cast<int32_t>(row.dtype) == value) return true;
  }
  return false;
}

int64_t HostByteWidth(DType dtype) {
  for (const Row& row : kRows) {
    if (row.dtype == dtype) return row.host_bytes;
  }
  return -1;
}

absl::string_view DTypeName(DType dtype) {
  for (const Row& row : kRows) {
    if (row.dtype == dtype) return row.name;
  }
  return "invalid";
}

absl::StatusOr<DType> DTypeFromName(absl::string_view name) {
  for (const Row& row : kRows) {
    if (name == row.name) return row.dtype;
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown element type '", name, "'"));
}

}  // namespace causeway::model
