// Element types of arrays; the numbers are those of the client protocol (IFRT), which are XLA's
// PrimitiveType but for the one-bit, float4 and float8_e8m0fnu types.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace causeway::model {

enum class DType : int32_t {
  kInvalid = 0,
  kPred = 1,
  kS8 = 2,
  kS16 = 3,
  kS32 = 4,
  kS64 = 5,
  kU8 = 6,
  kU16 = 7,
  kU32 = 8,
  kU64 = 9,
  kF16 = 10,
  kF32 = 11,
  kF64 = 12,
  kOpaque = 14,
  kC64 = 15,
  kBF16 = 16,
  kToken = 17,
  kC128 = 18,
  kF8E5M2 = 19,
  kF8E4M3FN = 20,
  kS4 = 21,
  kU4 = 22,
  kF8E4M3B11FNUZ = 23,
  kF8E5M2FNUZ = 24,
  kF8E4M3FNUZ = 25,
  kS2 = 26,
  kU2 = 27,
  kF8E4M3 = 28,
  kF8E3M4 = 29,
  kF4E2M1FN = 30,
  kF8E8M0FNU = 31,
  kS1 = 32,
  kU1 = 33,
  kString = 99,
};

// Whether `value` names an element type that arrays may have.
bool IsKnownDType(int32_t value);

// Bytes of one element in host memory and on the wire; sub-byte types take one byte. Tokens: 0.
// Strings have no fixed size: -1.
int64_t HostByteWidth(DType dtype);

// NumPy / ml_dtypes name ("float32", "bfloat16", "int4"); "token", "string" for those two.
absl::string_view DTypeName(DType dtype);

// The inverse of DTypeName; INVALID_ARGUMENT when the name is unknown.
absl::StatusOr<DType> DTypeFromName(absl::string_view name);

}  // namespace causeway::model
