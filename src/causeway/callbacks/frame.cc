// Frames to bytes and back.
#include "causeway/callbacks/frame.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "causeway/base/check.h"

namespace causeway::callbacks {
namespace {
constexpr uint16_t kFlagLast = 1;
constexpr uint16_t kFlagFirst = 2;
constexpr uint16_t kLastKind = static_cast<uint16_t>(Kind::kWorkerGone);
}  // namespace

bool IsToken(absl::string_view text) {
  if (text.size() != kTokenChars) return false;
  for (char c : text) {
    if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return false;
  }
  return true;
}

std::string EncodeHeader(const Frame& frame, size_t payload_bytes) {
  CHECK_LE(payload_bytes, kPayloadBytesMax);
  std::string out;
  out.reserve(kHeaderBytes);
  AppendInt<uint32_t>(out, static_cast<uint32_t>(payload_bytes));
  AppendInt<uint16_t>(out, static_cast<uint16_t>(frame.kind));
  AppendInt<uint16_t>(out, (frame.last ? kFlagLast : 0) | (frame.first ? kFlagFirst : 0));
  AppendInt<uint64_t>(out, frame.worker);
  AppendInt<uint64_t>(out, frame.call);
  return out;
}

absl::StatusOr<size_t> DecodeHeader(absl::string_view header, Frame& frame) {
  CHECK_EQ(header.size(), kHeaderBytes);
  uint32_t size = 0;
  uint16_t kind = 0, flags = 0;
  TakeInt(header, size);
  TakeInt(header, kind);
  TakeInt(header, flags);
  TakeInt(header, frame.worker);
  TakeInt(header, frame.call);
  if (kind == 0 || kind > kLastKind) {
    return absl::InvalidArgumentError(absl::StrCat(
        "callback frame of unknown kind ", kind, ": the peer speaks another protocol or version"));
  }
  if (size > kPayloadBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("callback frame of ", size, " bytes; at most ",
                                                   kPayloadBytesMax, " are allowed, in pieces"));
  }
  frame.kind = static_cast<Kind>(kind);
  frame.last = (flags & kFlagLast) != 0;
  frame.first = (flags & kFlagFirst) != 0;
  return size;
}

std::string EncodeHello(absl::string_view token) {
  std::string out(kMagic);
  AppendInt<uint32_t>(out, kVersion);
  out.append(token.data(), token.size());
  return out;
}

Frame ErrorFrame(uint64_t worker, uint64_t call, const absl::Status& status) {
  Frame frame{.kind = Kind::kError, .worker = worker, .call = call};
  AppendInt<uint32_t>(frame.payload, static_cast<uint32_t>(status.code()));
  const absl::string_view text = status.message().substr(0, kPayloadBytesMax - sizeof(uint32_t));
  frame.payload.append(text.data(), text.size());
  return frame;
}

absl::Status DecodeError(absl::string_view payload) {
  uint32_t code = 0;
  if (!TakeInt(payload, code) || code == 0 || code > 16) {
    return absl::InternalError("the host callback failed, but its error cannot be read");
  }
  return absl::Status(static_cast<absl::StatusCode>(code), payload);
}

char* FrameReader::data() {
  return header_have_ < kHeaderBytes ? header_ + header_have_
                                     : frame_.payload.data() + payload_have_;
}

size_t FrameReader::space() const {
  return header_have_ < kHeaderBytes ? kHeaderBytes - header_have_
                                     : frame_.payload.size() - payload_have_;
}

absl::StatusOr<bool> FrameReader::Advance(size_t n, Frame& frame) {
  CHECK_LE(n, space());
  if (header_have_ < kHeaderBytes) {
    header_have_ += n;
    if (header_have_ < kHeaderBytes) return false;
    absl::StatusOr<size_t> size = DecodeHeader({header_, kHeaderBytes}, frame_);
    if (!size.ok()) return size.status();
    frame_.payload.resize(*size);
    payload_have_ = 0;
  } else {
    payload_have_ += n;
  }
  if (payload_have_ < frame_.payload.size()) return false;
  frame = std::move(frame_);
  frame_ = Frame();
  header_have_ = 0;
  return true;
}

}  // namespace causeway::callbacks
