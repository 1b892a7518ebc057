// Strided copies of boxes between host buffers.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "causeway/model/sharding.h"

namespace causeway::model {

// Row-major strides in bytes of a dense array.
std::vector<int64_t> DenseStrides(const Shape& shape, int64_t element_bytes);

// Bytes that an array with these strides spans from its first element's first byte. Negative
// strides are not supported: INVALID_ARGUMENT.
absl::StatusOr<int64_t> SpannedBytes(const Shape& shape, const std::vector<int64_t>& byte_strides,
                                     int64_t element_bytes);

// Copies `dims` elements from `source` to `target`, each with strides of its own. The pointers are
// at the first element. Regions must not overlap.
void CopyStrided(const Shape& dims, int64_t element_bytes, const char* source,
                 const std::vector<int64_t>& source_strides, char* target,
                 const std::vector<int64_t>& target_strides);

// Offset in bytes of the element at `index`.
int64_t ByteOffset(const std::vector<int64_t>& index, const std::vector<int64_t>& byte_strides);

}  // namespace causeway::model
