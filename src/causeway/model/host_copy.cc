// Strided copies, innermost runs by memcpy.
#include "causeway/model/host_copy.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "causeway/base/limits.h"

namespace causeway::model {

std::vector<int64_t> DenseStrides(const Shape& shape, int64_t element_bytes) {
  std::vector<int64_t> strides(shape.size());
  int64_t stride = element_bytes;
  for (size_t d = shape.size(); d-- > 0;) {
    strides[d] = stride;
    stride *= shape[d];
  }
  return strides;
}

absl::StatusOr<int64_t> SpannedBytes(const Shape& shape, const std::vector<int64_t>& byte_strides,
                                     int64_t element_bytes) {
  if (byte_strides.size() != shape.size()) {
    return absl::InvalidArgumentError(absl::StrCat(byte_strides.size(), " strides for an array of ",
                                                   shape.size(), " dimensions"));
  }
  const int64_t elements = NumElements(shape);
  if (elements == 0) return 0;
  const int64_t span_max = elements * element_bytes * limits::kStrideSpanMax;
  int64_t last = 0;
  for (size_t d = 0; d < shape.size(); ++d) {
    if (shape[d] <= 1) continue;
    if (byte_strides[d] < 0) {
      return absl::InvalidArgumentError("negative byte strides; make the array contiguous first");
    }
    if (byte_strides[d] > (span_max - last) / (shape[d] - 1)) {
      return absl::ResourceExhaustedError(
          absl::StrCat("byte strides that span more than kStrideSpanMax = ", limits::kStrideSpanMax,
                       " times the array's bytes; make the array contiguous first"));
    }
    last += (shape[d] - 1) * byte_strides[d];
  }
  return last + element_bytes;
}

int64_t ByteOffset(const std::vector<int64_t>& index, const std::vector<int64_t>& byte_strides) {
  int64_t offset = 0;
  for (size_t d = 0; d < index.size(); ++d) offset += index[d] * byte_strides[d];
  return offset;
}

void CopyStrided(const Shape& dims, int64_t element_bytes, const char* source,
                 const std::vector<int64_t>& source_strides, char* target,
                 const std::vector<int64_t>& target_strides) {
  if (NumElements(dims) == 0) return;
  // The longest suffix of dimensions that is dense on both sides moves as one run.
  size_t outer = dims.size();
  int64_t run = element_bytes;
  while (outer > 0 && (dims[outer - 1] == 1 || (source_strides[outer - 1] == run &&
                                                target_strides[outer - 1] == run))) {
    run *= dims[outer - 1];
    --outer;
  }
  std::vector<int64_t> index(outer, 0);
  while (true) {
    std::memcpy(target, source, run);
    size_t d = outer;
    while (d-- > 0) {
      // The stride of such a dimension means nothing and may be any number.
      if (dims[d] == 1) continue;
      source += source_strides[d];
      target += target_strides[d];
      if (++index[d] < dims[d]) break;
      source -= source_strides[d] * dims[d];
      target -= target_strides[d] * dims[d];
      index[d] = 0;
    }
    if (d == static_cast<size_t>(-1)) return;
  }
}

}  // namespace causeway::model
