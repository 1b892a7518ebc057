// What holds a client back, what refuses it, and that neither touches its neighbours.

#include "absl/time/clock.h"
#include "causeway/base/limits.h"
#include "causeway/proxy/proxy_test_client.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace causeway::proxy {
namespace {

using ::testing::HasSubstr;

class LimitsTest : public ProxyTest {
 protected:
  uint64_t Handled(const std::string& kind) { return proxy_->GetStats().requests[kind]; }
  // The server has read so many requests of a kind; false: not within the bound.
  bool AwaitHandled(const std::string& kind, uint64_t n) {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (Handled(kind) < n && absl::Now() < deadline) std::this_thread::yield();
    return Handled(kind) >= n;
  }
  // A whole round trip of another client, whose own limits are far away.
  void NeighbourWorks() {
    Client neighbour(target_);
    neighbour.Init();
    ASSERT_TRUE(neighbour.Store(1, 4, {"abcd"}).ok());
    EXPECT_TRUE(neighbour.Ask(MakeArray(1, 1)).has_make_array_from_host_buffer_response());
  }
};

TEST_F(LimitsTest, OpenCallsHoldTheReaderBack) {
  Options options;
  options.max_open_calls = 4;
  Start(std::move(options));
  Client client(target_);
  client.Init();
  ASSERT_TRUE(client.Store(1, 4, {"abcd"}).ok());
  client.Ask(MakeArray(1, 1));
  {
    absl::MutexLock lock(&runtime_.mu);
    runtime_.hold_ready = true;
  }
  for (int i = 0; i < 12; ++i) client.Send(Ready(1));
  ASSERT_TRUE(AwaitHandled("check_value_ready", 5));
  NeighbourWorks();
  EXPECT_EQ(Handled("check_value_ready"), 5u);
  {
    absl::MutexLock lock(&runtime_.mu);
    runtime_.hold_ready = false;
  }
  runtime_.ReleaseReady();
  for (int i = 0; i < 12; ++i) EXPECT_TRUE(client.Receive().has_check_value_ready_response());
}

TEST_F(LimitsTest, AnExecutionWaitsForBytesThatTheClientIsStillSending) {
  Start();
  Client client(target_);
  client.Init();
  IfrtRequest execute;
  execute.mutable_loaded_executable_execute_request()->set_loaded_executable_handle(kServer + 999);
  execute.mutable_loaded_executable_execute_request()->add_args_handles(1);
  // Nothing is on its way: nobody is asked.
  EXPECT_NE(Code(client.Ask(execute)), absl::StatusCode::kOk);
  EXPECT_FALSE(runtime_.Logged("may execute"));
  {
    absl::MutexLock lock(&runtime_.mu);
    runtime_.bytes_missing = true;
  }
  client.Send(MakeArray(1, 7));  // of a buffer that has not come
  const uint64_t held = client.Send(execute);
  const uint64_t after = client.Send(Destruct(100));
  EXPECT_TRUE(client.Receive().has_make_array_from_host_buffer_response());
  while (!runtime_.Logged("may execute")) std::this_thread::yield();
  NeighbourWorks();
  EXPECT_EQ(Handled("loaded_executable_execute"), 1u);
  ASSERT_TRUE(client.Store(7, 4, {"abcd"}).ok());
  runtime_.BytesCome();
  EXPECT_EQ(client.Receive().response_metadata().op_id(), held);
  EXPECT_EQ(client.Receive().response_metadata().op_id(), after);
}

TEST_F(LimitsTest, AClientFarAheadOfTheWorkersIsNotRead) {
  Start();
  Client client(target_);
  client.Init();
  ASSERT_TRUE(runtime_.WaitAsked());
  {
    absl::MutexLock lock(&runtime_.mu);
    runtime_.far_ahead = true;
  }
  for (int i = 0; i < 5; ++i) client.Send(Destruct(100 + i));
  ASSERT_TRUE(AwaitHandled("destruct_array", 1));
  EXPECT_EQ(Handled("destruct_array"), 1u);
  runtime_.CatchUp();
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Code(client.Receive()), absl::StatusCode::kNotFound);
}

TEST_F(LimitsTest, AClientThatIsHeldBackCanVanish) {
  Start();
  {
    Client client(target_);
    client.Init();
    ASSERT_TRUE(runtime_.WaitAsked());
    {
      absl::MutexLock lock(&runtime_.mu);
      runtime_.far_ahead = true;
    }
    client.Send(Destruct(1));
    ASSERT_TRUE(AwaitHandled("destruct_array", 1));
    client.Vanish();
    ASSERT_TRUE(runtime_.WaitClosed(1));
  }
  runtime_.CatchUp();  // wakes nobody
  NeighbourWorks();
}

TEST_F(LimitsTest, BytesThatNobodyFetchesHoldTheReaderBack) {
  Options options;
  options.max_bytes_in_flight = 10'000;
  Start(std::move(options));
  Client client(target_);
  client.Init();
  ASSERT_TRUE(client.Store(77, 8000, {std::string(8000, 'x')}).ok());
  client.Ask(MakeArray(77, 2000));  // the neighbour's array is number 1
  for (uint64_t buffer = 10; buffer < 16; ++buffer) {
    IfrtRequest copy;
    copy.mutable_copy_to_host_buffer_request()->set_array_handle(77);
    copy.mutable_copy_to_host_buffer_request()->set_host_buffer_handle(buffer);
    client.Send(copy);
  }
  // The array's own bytes and the first copy are over the limit already.
  EXPECT_TRUE(client.Receive().has_copy_to_host_buffer_response());
  NeighbourWorks();
  EXPECT_EQ(Handled("copy_to_host_buffer"), 1u);
  // Deleting what was copied lets the next ones pass, one by one while the array's bytes are held.
  client.Send(Destruct(77));
  std::string bytes;
  int chunks = 0;
  for (uint64_t buffer = 10; buffer < 16; ++buffer) {
    ASSERT_TRUE(client.Lookup(buffer, &bytes, &chunks).ok()) << buffer;
    EXPECT_EQ(bytes.size(), 8000u);
    ASSERT_TRUE(client.DeleteBuffer(buffer).ok());
    if (buffer < 15) {
      EXPECT_TRUE(client.Receive().has_copy_to_host_buffer_response());
    }
  }
  EXPECT_TRUE(client.Receive().has_destruct_array_response());
}

TEST_F(LimitsTest, RanksAndShapesThatNoArrayHasAreRefusedByName) {
  Start();
  Client client(target_);
  client.Init();
  IfrtRequest layout;
  layout.mutable_get_default_layout_request()->mutable_dtype()->set_kind(11);
  for (int i = 0; i <= limits::kArrayRankMax; ++i) {
    layout.mutable_get_default_layout_request()->add_dims(1);
  }
  IfrtResponse refused = client.Ask(layout);
  EXPECT_EQ(Code(refused), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(refused.response_metadata().status().message(), HasSubstr("kArrayRankMax"));
  IfrtRequest make = MakeArray(1, int64_t{1} << 40);
  make.mutable_make_array_from_host_buffer_request()->mutable_shape()->add_dims(int64_t{1} << 40);
  refused = client.Ask(make);
  EXPECT_EQ(Code(refused), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(refused.response_metadata().status().message(), HasSubstr("kArrayElementsMax"));
}

// jaxlib 0.8 ends its process when a reply does not name the handles that it chose.
TEST_F(LimitsTest, RepliesNameTheHandlesThatTheClientChose) {
  Start();
  Client client(target_);
  client.Init();
  ASSERT_TRUE(client.Store(1, 4, {"abcd"}).ok());
  EXPECT_EQ(client.Ask(MakeArray(1, 1)).make_array_from_host_buffer_response().array_handle(), 1u);
  IfrtRequest copy;
  copy.mutable_copy_arrays_request()->add_array_handles(1);
  copy.mutable_copy_arrays_request()->add_result_handles(2);
  copy.mutable_copy_arrays_request()->set_copy_semantics(2);
  EXPECT_THAT(client.Ask(copy).copy_arrays_response().array_handles(), ::testing::ElementsAre(2));
  IfrtRequest shard;
  shard.mutable_fully_replicated_shard_request()->set_array_handle(1);
  shard.mutable_fully_replicated_shard_request()->set_result_handle(3);
  EXPECT_EQ(client.Ask(shard).fully_replicated_shard_response().array_handle(), 3u);
}

class ProtocolTest : public ProxyTest, public ::testing::WithParamInterface<int> {};

// A whole session at every version that a client or an operator may settle on.
TEST_P(ProtocolTest, ASessionRuns) {
  Options options;
  options.max_protocol = GetParam();
  Start(std::move(options));
  Client newest(target_, kMaxVersion.protocol + 1);
  EXPECT_EQ(newest.Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  Client client(target_, GetParam());
  svc::IfrtProxyVersion agreed;
  ASSERT_TRUE(client.GetVersion(1, 99, 3, &agreed).ok());
  EXPECT_EQ(agreed.protocol_version(), GetParam());
  client.Init();
  ASSERT_TRUE(client.Store(1, 4, {"abcd"}).ok());
  EXPECT_TRUE(client.Ask(MakeArray(1, 1)).has_make_array_from_host_buffer_response());
  const auto program = client.Ask(CompileFor({0})).compile_response();
  IfrtRequest run = Execute(program.loaded_executable_handle());
  run.mutable_loaded_executable_execute_request()->mutable_execute_options()->set_fill_status(true);
  const auto first = client.Ask(run).loaded_executable_execute_response();
  ASSERT_EQ(first.outputs_size(), 1);
  // Before version 21 the outcome is asked for as a future.
  IfrtRequest outcome;
  if (GetParam() < kFetchExecuteResultProtocol) {
    outcome.mutable_check_future_request()->set_future_handle(first.status_handle());
  } else {
    outcome.mutable_loaded_executable_fetch_execute_result_request()->set_result_status_handle(
        first.status_handle());
  }
  EXPECT_EQ(Code(client.Ask(outcome)), absl::StatusCode::kOk);
  EXPECT_TRUE(client.Ask(Ready(first.outputs(0).array_handle())).has_check_value_ready_response());
  EXPECT_TRUE(client.Ask(Destruct(1)).has_destruct_array_response());
}

INSTANTIATE_TEST_SUITE_P(AllVersions, ProtocolTest,
                         ::testing::Range(kMinVersion.protocol, kMaxVersion.protocol + 1));

}  // namespace
}  // namespace causeway::proxy
