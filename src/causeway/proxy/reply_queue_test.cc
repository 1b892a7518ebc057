// Tests: order, held reading, and the end of a stream's write side.
#include "causeway/proxy/reply_queue.h"

#include <gtest/gtest.h>

#include <utility>

namespace causeway::proxy {
namespace {

class CountingStream : public ReplyStream {
 public:
  void Write(const ifrt::IfrtResponse& message, bool more) override {
    ++writes;
    last_more = more;
  }
  void Read() override { ++reads; }
  void Finish(const grpc::Status& status) override { ++ends; }

  int writes = 0, reads = 0, ends = 0;
  bool last_more = false;
};

TEST(ReplyQueue, WritesOneAtATimeAndHoldsReadingBack) {
  CountingStream stream;
  ReplyQueue queue(&stream, /*max_queued=*/2);
  for (int i = 0; i < 4; ++i) queue.Send(queue.NewReply(), {});
  EXPECT_EQ(stream.writes, 1);
  EXPECT_FALSE(queue.MayRead());
  EXPECT_FALSE(queue.OnWriteDone(true));
  EXPECT_TRUE(stream.last_more);
  EXPECT_TRUE(queue.OnWriteDone(true));  // few enough wait: read again
  EXPECT_TRUE(queue.MayRead());
  EXPECT_FALSE(queue.OnWriteDone(true));
  EXPECT_FALSE(stream.last_more);
  EXPECT_EQ(stream.writes, 4);
}

TEST(ReplyQueue, NothingBeginsAfterTheEnd) {
  CountingStream stream;
  ReplyQueue queue(&stream, 2);
  queue.Read();
  EXPECT_EQ(stream.reads, 1);
  queue.Finish(grpc::Status::OK);
  queue.Finish(grpc::Status::CANCELLED);
  EXPECT_EQ(stream.ends, 1);
  // One who made room for a request wakes the reader late.
  queue.Read();
  queue.Send(queue.NewReply(), {});
  EXPECT_EQ(stream.reads, 1);
  EXPECT_EQ(stream.writes, 0);
}

}  // namespace
}  // namespace causeway::proxy
