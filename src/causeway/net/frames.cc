// Cutting and gathering of frames.
#include "causeway/net/frames.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace causeway::net {
namespace {

constexpr size_t kBufferBytes = 64 << 10;
constexpr size_t kKeptBufferBytes = 2 << 20;  // what stays: chunks of transfers are 1 MiB
constexpr size_t kFramesPerCall = 64;

uint32_t Load32(const char* from) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(from);
  return static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 |
         static_cast<uint32_t>(bytes[2]) << 16 | static_cast<uint32_t>(bytes[3]) << 24;
}

void Store32(uint32_t value, char* to) {
  for (int i = 0; i < 4; ++i) to[i] = static_cast<char>(value >> (8 * i));
}

}  // namespace

FrameHeader EncodeFrameHeader(uint32_t kind, size_t payload_bytes) {
  FrameHeader header;
  Store32(static_cast<uint32_t>(payload_bytes), header.data());
  Store32(kind, header.data() + 4);
  return header;
}

void AppendFrame(uint32_t kind, absl::string_view payload, std::string* out) {
  const FrameHeader header = EncodeFrameHeader(kind, payload.size());
  out->append(header.data(), header.size());
  out->append(payload.data(), payload.size());
}

absl::Span<char> FrameReader::Space() {
  const size_t have = end_ - begin_;
  if (have == 0) {
    begin_ = end_ = 0;
    if (buffer_.size() > kKeptBufferBytes) buffer_ = std::vector<char>();
  }
  size_t want = kBufferBytes;
  if (have >= kFrameHeaderBytes) {
    const size_t frame = kFrameHeaderBytes + Load32(buffer_.data() + begin_);
    want = std::max(want, std::min(frame, 2 * have));
  }
  if (begin_ > 0 && buffer_.size() - begin_ < want) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, have);
    begin_ = 0;
    end_ = have;
  }
  if (buffer_.size() < want) buffer_.resize(want);
  if (end_ == buffer_.size()) buffer_.resize(2 * buffer_.size());
  return absl::MakeSpan(buffer_).subspan(end_);
}

absl::StatusOr<std::optional<Frame>> FrameReader::Next() {
  const size_t have = end_ - begin_;
  if (have < kFrameHeaderBytes) return std::nullopt;
  const char* header = buffer_.data() + begin_;
  const size_t size = Load32(header);
  if (size > max_payload_) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "a message of ", size, " bytes where at most ", max_payload_,
        " are allowed; is the other side of this connection another program?"));
  }
  if (have < kFrameHeaderBytes + size) return std::nullopt;
  Frame frame{Load32(header + 4), absl::string_view(header + kFrameHeaderBytes, size)};
  begin_ += kFrameHeaderBytes + size;
  return frame;
}

void FrameWriter::Add(uint32_t kind, std::shared_ptr<const std::string> payload) {
  bytes_ += static_cast<int64_t>(payload->size());
  const FrameHeader header = EncodeFrameHeader(kind, payload->size());
  frames_.push_back({header, std::move(payload)});
}

absl::StatusOr<bool> FrameWriter::Flush(int fd) {
  while (!frames_.empty()) {
    iovec pieces[2 * kFramesPerCall];
    size_t count = 0, skip = sent_;
    auto add = [&](const char* data, size_t size) {
      const size_t skipped = std::min(skip, size);
      skip -= skipped;
      if (skipped < size) pieces[count++] = {const_cast<char*>(data) + skipped, size - skipped};
    };
    for (size_t i = 0; i < std::min(frames_.size(), kFramesPerCall); ++i) {
      add(frames_[i].header.data(), kFrameHeaderBytes);
      add(frames_[i].payload->data(), frames_[i].payload->size());
    }
    msghdr message{};
    message.msg_iov = pieces;
    message.msg_iovlen = count;
    const ssize_t sent = ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return false;
    if (sent < 0) {
      return absl::UnavailableError(
          absl::StrCat("the connection to the peer is lost: ", std::strerror(errno)));
    }
    sent_ += static_cast<size_t>(sent);
    while (!frames_.empty() && sent_ >= kFrameHeaderBytes + frames_.front().payload->size()) {
      const size_t payload = frames_.front().payload->size();
      sent_ -= kFrameHeaderBytes + payload;
      bytes_ -= static_cast<int64_t>(payload);
      frames_.pop_front();
    }
  }
  return true;
}

void FrameWriter::Clear() {
  frames_.clear();
  sent_ = 0;
  bytes_ = 0;
}

}  // namespace causeway::net
