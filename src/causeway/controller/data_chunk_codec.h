// Serialized Commands that carry bytes of a transfer.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "causeway/base/strong_id.h"

namespace causeway::controller {

// A Data command. The bytes are copied once, out of the cord.
std::shared_ptr<const std::string> EncodeDataChunk(TransferId transfer, int64_t offset,
                                                   int64_t total, const absl::Cord& bytes,
                                                   bool checksum);
// The Data command that says where the bytes are: a file to map and unlink.
std::shared_ptr<const std::string> EncodeDataFile(TransferId transfer, const std::string& name,
                                                  int64_t offset, int64_t bytes,
                                                  std::optional<uint64_t> checksum);
// The Data command that says why the bytes will never come. `error` is not OK.
std::shared_ptr<const std::string> EncodeDataError(TransferId transfer, const absl::Status& error);

}  // namespace causeway::controller
