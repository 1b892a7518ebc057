// Tests of the frames: round trips at any cut, and what is refused.
#include "causeway/callbacks/frame.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace causeway::callbacks {
namespace {

// Feeds `bytes` in parts of at most `cut`; returns the frames, or the error.
absl::StatusOr<std::vector<Frame>> ReadAll(absl::string_view bytes, size_t cut) {
  FrameReader reader;
  std::vector<Frame> frames;
  while (!bytes.empty()) {
    const size_t n = std::min({cut, reader.space(), bytes.size()});
    std::copy_n(bytes.data(), n, reader.data());
    bytes.remove_prefix(n);
    Frame frame;
    absl::StatusOr<bool> complete = reader.Advance(n, frame);
    if (!complete.ok()) return complete.status();
    if (*complete) frames.push_back(std::move(frame));
  }
  return frames;
}

std::string Bytes(const Frame& frame) {
  return EncodeHeader(frame, frame.payload.size()) + frame.payload;
}

TEST(Frame, SurvivesAnyCut) {
  const Frame call{.kind = Kind::kCall,
                   .first = true,
                   .last = false,
                   .worker = 7,
                   .call = uint64_t{1} << 60,
                   .payload = std::string(1000, 'x')};
  const Frame empty{.kind = Kind::kRelease, .call = 3};
  const std::string bytes = Bytes(call) + Bytes(empty) + Bytes(call);
  for (size_t cut : {size_t{1}, size_t{7}, size_t{24}, size_t{25}, bytes.size()}) {
    auto frames = ReadAll(bytes, cut);
    ASSERT_TRUE(frames.ok());
    ASSERT_EQ(frames->size(), 3u);
    EXPECT_EQ((*frames)[0].payload, call.payload);
    EXPECT_EQ((*frames)[0].call, call.call);
    EXPECT_EQ((*frames)[0].worker, 7u);
    EXPECT_TRUE((*frames)[0].first);
    EXPECT_FALSE((*frames)[0].last);
    EXPECT_EQ((*frames)[1].kind, Kind::kRelease);
    EXPECT_TRUE((*frames)[1].last);
    EXPECT_EQ((*frames)[2].payload, call.payload);
  }
}

TEST(Frame, IsNotCompleteWhenCutOff) {
  const std::string bytes = Bytes(Frame{.kind = Kind::kResult, .payload = "12345"});
  for (size_t n = 0; n < bytes.size(); ++n) {
    auto frames = ReadAll(absl::string_view(bytes).substr(0, n), 4);
    ASSERT_TRUE(frames.ok());
    EXPECT_TRUE(frames->empty()) << n;
  }
}

TEST(Frame, RefusesOversizedAndUnknown) {
  std::string big = EncodeHeader(Frame{.kind = Kind::kCall}, 0);
  const uint32_t size = kPayloadBytesMax + 1;
  std::memcpy(big.data(), &size, sizeof size);
  EXPECT_EQ(ReadAll(big, big.size()).status().code(), absl::StatusCode::kInvalidArgument);
  std::string http = "GET / HTTP/1.1\r\nHost: here\r\n\r\n";
  EXPECT_EQ(ReadAll(http, http.size()).status().code(), absl::StatusCode::kInvalidArgument);
  std::string zeros(kHeaderBytes, '\0');
  EXPECT_EQ(ReadAll(zeros, zeros.size()).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Frame, ErrorsKeepCodeAndText) {
  const Frame frame = ErrorFrame(1, 2, absl::UnavailableError("the client is gone"));
  EXPECT_EQ(DecodeError(frame.payload), absl::UnavailableError("the client is gone"));
  EXPECT_EQ(DecodeError("").code(), absl::StatusCode::kInternal);
  EXPECT_EQ(DecodeError(std::string(4, '\xff')).code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace causeway::callbacks
