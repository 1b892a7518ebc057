// Arrays of text in their host form: what clients send, workers keep and pass on, and clients get.
//
// An element has no fixed size, so shards are cut and joined element by element. The bytes are
// IFRT's: one length-prefixed entry an element, row-major.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "causeway/model/sharding.h"

namespace causeway::wire {

std::string EncodeText(const std::vector<std::string>& elements);

// INVALID_ARGUMENT when the bytes are no text array of `shape`.
absl::StatusOr<std::vector<std::string>> ParseText(absl::string_view bytes,
                                                   const model::Shape& shape);

// The elements of a box of an array of `shape`.
absl::StatusOr<std::string> CutText(absl::string_view bytes, const model::Shape& shape,
                                    const model::Box& box);

// One array of `shape` out of parts, which lie where their boxes say. INVALID_ARGUMENT when they do
// not fill it.
absl::StatusOr<std::string> JoinText(
    const model::Shape& shape, const std::vector<std::pair<model::Box, std::string>>& parts);

}  // namespace causeway::wire
