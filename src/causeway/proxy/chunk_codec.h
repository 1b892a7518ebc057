// Host-buffer chunk messages without a protocol-buffer object between the socket and the bytes.
//
// A chunk is a message with one field, `bytes data = 1`; other fields are skipped.
// Thread safety: pure functions.
#pragma once

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"
#include "grpcpp/support/byte_buffer.h"

namespace causeway::proxy {

// Calls `take` with the pieces of the chunk's data, in order; stops at its first error.
// INVALID_ARGUMENT when the message is malformed.
absl::Status DecodeChunk(const grpc::ByteBuffer& message,
                         absl::FunctionRef<absl::Status(absl::string_view)> take);

// A message whose data is `data`; shares the cord's memory.
grpc::ByteBuffer EncodeChunk(const absl::Cord& data);

// The message without fields.
grpc::ByteBuffer EmptyMessage();

}  // namespace causeway::proxy
