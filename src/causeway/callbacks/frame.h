// The frames on a callback connection, and a reader that cuts a byte stream into them.
//
// All integers are little-endian. A frame is a header of 24 bytes and a payload:
//   u32 payload bytes | u16 kind | u16 flags | u64 worker | u64 call | payload
// `worker` is the relay's number of the worker's connection: set by the relay on the way to a
// client and returned by the client. `call` numbers the calls of one such connection.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace causeway::callbacks {

inline constexpr uint32_t kVersion = 1;
inline constexpr absl::string_view kMagic = "CWCB";
inline constexpr size_t kTokenChars = 32;  // lower-case hex
inline constexpr size_t kHeaderBytes = 24;

// Bounds. A piece of a message fits in one payload.
inline constexpr size_t kPieceBytes = 1 << 20;
inline constexpr size_t kPayloadBytesMax = kPieceBytes;
inline constexpr int64_t kWindowBytes = 8 << 20;  // of one worker for one channel, in the relay
inline constexpr int64_t kWorkerQueueBytes = 16 << 20;  // beyond it, clients that add are not read
inline constexpr int64_t kCallsPerWorkerMax = 1 << 16;
inline constexpr int kConnectionsMax = 1 << 13;
inline constexpr int kHelloSecondsMax = 10;
inline constexpr int kReleaseGraceSeconds = 60;

enum class Kind : uint16_t {
  kClientHello = 1,  // client: magic, u32 version, token
  kWorkerHello = 2,  // worker: magic, u32 version; call = worker's place in the cluster
  kWelcome = 3,      // relay's answer; worker = number of the connection
  kRefused = 4,      // relay's other answer: text; the connection is closed
  kCall = 5,         // worker -> client. A piece: token, u64 size of the message (first), bytes
  kResult = 6,       // client -> worker. First piece: u64 bytes, results one after the other
  kError = 7,        // client or relay -> worker: u32 canonical code, text
  kUse = 8,          // worker: token; call = group: the first instance of one of its calls exists
  kUnuse = 9,        // worker: token; call = group: the last one is gone
  kRelease = 10,     // relay -> client; call = group: drop its functions
  kGrant = 11,       // relay -> worker: token; call = bytes of the window that are free again
  kWorkerGone = 12,  // relay -> client: calls of `worker` want no answer any more
};

struct Frame {
  Kind kind = Kind::kWelcome;
  bool first = true;
  bool last = true;
  uint64_t worker = 0;
  uint64_t call = 0;
  std::string payload;
};

template <typename T>
void AppendInt(std::string& out, T value) {
  static_assert(std::is_integral_v<T>);
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// Takes an integer off the front of `in`; false when it is too short.
template <typename T>
bool TakeInt(absl::string_view& in, T& value) {
  if (in.size() < sizeof value) return false;
  std::memcpy(&value, in.data(), sizeof value);
  in.remove_prefix(sizeof value);
  return true;
}

bool IsToken(absl::string_view text);

// The header's bytes; the payload follows them on the wire.
std::string EncodeHeader(const Frame& frame, size_t payload_bytes);

// Parses a header of exactly kHeaderBytes into `frame` and returns the payload's size.
// INVALID_ARGUMENT for a kind that does not exist or a payload beyond kPayloadBytesMax.
absl::StatusOr<size_t> DecodeHeader(absl::string_view header, Frame& frame);

std::string EncodeHello(absl::string_view token);
Frame ErrorFrame(uint64_t worker, uint64_t call, const absl::Status& status);
absl::Status DecodeError(absl::string_view payload);

// Thread safety: none; one reader a connection.
class FrameReader {
 public:
  // Where the next bytes of the stream go, and how many at most. Never empty.
  char* data();
  size_t space() const;

  // `n` bytes have arrived there. Ok(true): `frame` is complete and was moved out.
  absl::StatusOr<bool> Advance(size_t n, Frame& frame);

 private:
  char header_[kHeaderBytes];
  size_t header_have_ = 0;
  size_t payload_have_ = 0;
  Frame frame_;  // its payload has its final size once the header is complete
};

}  // namespace causeway::callbacks
