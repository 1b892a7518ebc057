// Tests of frames: cut anywhere, too long, gathered into a socket that is full.
#include "causeway/net/frames.h"

#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "causeway/net/sockets.h"
#include "gtest/gtest.h"

namespace causeway::net {
namespace {

using Message = std::pair<uint32_t, std::string>;

// Gives `stream` to the reader in pieces of `step` bytes.
std::vector<Message> Cut(FrameReader& reader, const std::string& stream, size_t step) {
  std::vector<Message> found;
  for (size_t at = 0; at < stream.size();) {
    const absl::Span<char> space = reader.Space();
    const size_t size = std::min({step, space.size(), stream.size() - at});
    std::memcpy(space.data(), stream.data() + at, size);
    reader.Received(size);
    at += size;
    while (true) {
      auto frame = reader.Next();
      EXPECT_TRUE(frame.ok()) << frame.status();
      if (!frame.ok() || !frame->has_value()) break;
      found.emplace_back((*frame)->kind, std::string((*frame)->payload));
    }
  }
  return found;
}

TEST(Frames, AreCutWhereverTheStreamIs) {
  std::string stream;
  std::vector<Message> sent;
  for (size_t size : {0, 1, 7, 8, 9, 70'000, 0, 200'000, 3}) {
    sent.emplace_back(static_cast<uint32_t>(sent.size()),
                      std::string(size, static_cast<char>('a' + sent.size())));
    AppendFrame(sent.back().first, sent.back().second, &stream);
  }
  for (size_t step : {1, 3, 8, 4096, 65'536, 1 << 20}) {
    FrameReader reader(1 << 20);
    EXPECT_TRUE(Cut(reader, stream, step) == sent) << step;
    EXPECT_FALSE(reader.in_frame());
  }
}

TEST(Frames, ATruncatedOneIsNotTakenForWhole) {
  std::string stream;
  AppendFrame(0, "abcdef", &stream);
  for (size_t size = 1; size < stream.size(); ++size) {
    FrameReader reader(100);
    EXPECT_TRUE(Cut(reader, stream.substr(0, size), 1).empty());
    EXPECT_TRUE(reader.in_frame());
  }
}

TEST(Frames, ATooLongOneIsRefusedByItsHeader) {
  FrameReader reader(100);
  const FrameHeader header = EncodeFrameHeader(0, 101);
  const absl::Span<char> space = reader.Space();
  std::memcpy(space.data(), header.data(), header.size());
  reader.Received(header.size());
  EXPECT_EQ(reader.Next().status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(Frames, AHeaderAloneTakesNoMemory) {
  FrameReader reader(1 << 30);
  const FrameHeader header = EncodeFrameHeader(0, 1 << 30);
  const absl::Span<char> space = reader.Space();
  std::memcpy(space.data(), header.data(), header.size());
  reader.Received(header.size());
  ASSERT_TRUE(reader.Next().ok());
  EXPECT_LT(reader.Space().size(), size_t{1} << 20);
}

TEST(Frames, AFullSocketIsGoneOnWithWhereItStopped) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  const Socket here(ends[0]), there(ends[1]);
  FrameWriter writer;
  std::vector<Message> sent;
  for (uint32_t i = 0; i < 500; ++i) {
    sent.emplace_back(i, std::string(i * 37 % 5000, static_cast<char>('a' + i % 26)));
    writer.Add(i, std::make_shared<const std::string>(sent.back().second));
  }
  EXPECT_GT(writer.bytes(), 0);
  FrameReader reader(1 << 20);
  std::vector<Message> got;
  bool was_full = false;
  for (bool all = false; !all;) {
    auto flushed = writer.Flush(here.fd());
    ASSERT_TRUE(flushed.ok()) << flushed.status();
    all = *flushed;
    was_full |= !all;
    char bytes[3001];
    for (ssize_t size; (size = ::recv(there.fd(), bytes, sizeof bytes, MSG_DONTWAIT)) > 0;) {
      for (Message& m : Cut(reader, std::string(bytes, static_cast<size_t>(size)), 777)) {
        got.push_back(std::move(m));
      }
    }
  }
  EXPECT_TRUE(was_full);
  EXPECT_TRUE(got == sent);
  EXPECT_TRUE(writer.empty());
  EXPECT_EQ(writer.bytes(), 0);
}

TEST(Frames, ALostPeerIsToldToTheWriter) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  const Socket here(ends[0]);
  { const Socket there(ends[1]); }
  FrameWriter writer;
  writer.Add(0, std::make_shared<const std::string>("late"));
  EXPECT_EQ(writer.Flush(here.fd()).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace causeway::net
