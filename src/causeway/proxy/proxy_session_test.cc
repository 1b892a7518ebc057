// Session life over real gRPC: versions, start, bookkeeping, back pressure, ends.
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "causeway/proxy/proxy_test_client.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace causeway::proxy {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST_F(ProxyTest, AgreesOnVersionsOrRefuses) {
  Start();
  Client client(target_);
  svc::IfrtProxyVersion version;
  ASSERT_TRUE(client.GetVersion(16, 25, 3, &version).ok());
  EXPECT_EQ(version.protocol_version(), 25);
  EXPECT_EQ(version.ifrt_serdes_version_number(), 3);
  ASSERT_TRUE(client.GetVersion(20, 40, 9, &version).ok());
  EXPECT_EQ(version.protocol_version(), 25);
  EXPECT_EQ(version.ifrt_serdes_version_number(), 5);
  for (auto [min, max] : std::vector<std::pair<int, int>>{{3, 15}, {26, 30}}) {
    grpc::Status refused = client.GetVersion(min, max, 3, &version);
    EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(refused.error_message(), HasSubstr("16 to 25"));
  }
}

TEST_F(ProxyTest, RefusesSessionsItCannotServe) {
  Options options;
  options.admit = [](const Hello& hello) {
    return hello.data.count("token") > 0 && hello.data.at("token") == "t"
               ? absl::OkStatus()
               : absl::PermissionDeniedError("no token");
  };
  Start(std::move(options));
  Client old(target_, /*protocol=*/15);
  EXPECT_EQ(old.Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  Client admitted(target_);
  EXPECT_GT(admitted.Init().session_id(), 0u);

  auto stub =
      GrpcIfrtService::NewStub(grpc::CreateChannel(target_, grpc::InsecureChannelCredentials()));
  grpc::ClientContext bare;
  LimitTime(&bare);
  auto stream = stub->IfrtSession(&bare);
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ProxyTest, InitTellsTheCluster) {
  Options options;
  options.client_attributes["causeway_callback_port"] = int64_t{1234};
  Start(std::move(options));
  Client client(target_);
  EXPECT_EQ(Code(client.Ask(Ready(1))), absl::StatusCode::kFailedPrecondition);
  const ifrt::InitResponse init = client.Init();
  EXPECT_EQ(init.platform_name(), "cpu");
  EXPECT_EQ(init.runtime_type(), "pathways");
  EXPECT_EQ(init.process_index(), 0u);
  ASSERT_EQ(init.all_devices_size(), 8);
  EXPECT_EQ(init.addressable_device_ids_size(), 8);
  EXPECT_EQ(init.primary_device_ids_size(), 8);
  ASSERT_EQ(init.memories_size(), 24);
  std::set<int> memories;
  for (const auto& memory : init.memories()) memories.insert(memory.id());
  EXPECT_EQ(memories.size(), 24u);
  const auto& last = init.all_devices(7);
  EXPECT_EQ(last.debug_string(), "TFRT_CPU_7");
  EXPECT_EQ(last.attributes().attributes().at("slice_index").int64_value(), 1);
  EXPECT_EQ(last.attributes().attributes().at("virtual_task_index").int64_value(), 3);
  EXPECT_TRUE(memories.count(last.default_memory_id()));
  const auto& attributes = init.client_attributes().attributes();
  EXPECT_TRUE(attributes.at("serialize_with_sdy").bool_value());
  EXPECT_FALSE(attributes.at("supports_executable_serialization").bool_value());
  EXPECT_EQ(attributes.at("causeway_callback_port").int64_value(), 1234);

  IfrtRequest again;
  again.mutable_init_request();
  EXPECT_EQ(Code(client.Ask(again)), absl::StatusCode::kFailedPrecondition);

  IfrtRequest layout;
  layout.mutable_get_default_layout_request()->mutable_dtype()->set_kind(11);
  layout.mutable_get_default_layout_request()->add_dims(3);
  layout.mutable_get_default_layout_request()->add_dims(4);
  EXPECT_EQ(client.Ask(layout).get_default_layout_response().serialized_pjrt_layout(), "{1,0}");

  IfrtRequest assignment;
  assignment.mutable_get_default_device_assignment_request()->set_num_replicas(2);
  assignment.mutable_get_default_device_assignment_request()->set_num_partitions(3);
  const auto got =
      client.Ask(assignment).get_default_device_assignment_response().device_assignment();
  ASSERT_EQ(got.computation_devices_size(), 3);
  EXPECT_THAT(got.computation_devices(1).replica_device_ids(), ElementsAre(1, 4));
}

TEST_F(ProxyTest, UnknownHandlesAndKindsKeepTheSessionAlive) {
  Start();
  Client client(target_);
  client.Init();
  EXPECT_EQ(Code(client.Ask(Ready(77))), absl::StatusCode::kInvalidArgument);
  IfrtResponse gone = client.Ask(Destruct(77));
  EXPECT_EQ(Code(gone), absl::StatusCode::kNotFound);
  EXPECT_THAT(gone.response_metadata().status().message(), HasSubstr("77"));
  EXPECT_EQ(gone.response_case(), IfrtResponse::RESPONSE_NOT_SET);
  IfrtRequest poll;
  poll.mutable_loaded_host_callback_poll_request();
  IfrtResponse refused = client.Ask(poll);
  EXPECT_EQ(Code(refused), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(refused.response_metadata().status().message(),
              HasSubstr("loaded_host_callback_poll_request"));
  EXPECT_EQ(Code(client.Ask(IfrtRequest())), absl::StatusCode::kUnimplemented);
  IfrtRequest empty;
  empty.mutable_check_value_ready_request();
  EXPECT_TRUE(client.Ask(empty).has_check_value_ready_response());
}

TEST_F(ProxyTest, NumbersHaveNoGapsAndContextsAreReleasedOncePerRequest) {
  Start();
  Client client(target_);
  client.Init();  // takes number 0
  std::multiset<uint64_t> sent, released;
  int64_t next = 1;
  auto check = [&](const IfrtResponse& response, bool numbered) {
    const auto& metadata = response.response_metadata();
    if (!numbered) {
      EXPECT_THAT(metadata.destroyed_user_context_ids(), IsEmpty());
      return;
    }
    EXPECT_EQ(metadata.seq_num(), next++);
    for (uint64_t id : metadata.destroyed_user_context_ids()) {
      released.insert(id);
      EXPECT_LE(released.count(id), sent.count(id)) << "released more often than sent";
    }
  };
  ASSERT_TRUE(client.Store(1, 4, {"abcd"}).ok());
  ASSERT_TRUE(client.Store(2, 4, {"abcd"}).ok());
  sent.insert(100);
  check(client.Ask(MakeArray(1, 1), 100), true);
  sent.insert(100);
  check(client.Ask(MakeArray(2, 1), 100), true);
  check(client.Ask(Destruct(1)), false);
  check(client.Ask(Destruct(99)), false);  // an error
  IfrtRequest erase;
  erase.mutable_delete_array_request()->add_array_handle(2);
  const IfrtResponse erased = client.Ask(erase);
  check(erased, false);
  IfrtRequest future;
  future.mutable_check_future_request()->set_future_handle(
      erased.delete_array_response().deletion_future_handle());
  check(client.Ask(future), false);
  sent.insert(101);
  check(client.Ask(Ready(55), 101), false);  // an error that names no stack of its own
  sent.insert(102);
  check(client.Ask(Ready(2), 102), true);
  EXPECT_EQ(released, sent);
  EXPECT_EQ(released.count(100), 2u);
}

TEST_F(ProxyTest, RepliesMayOvertakeEachOther) {
  Start();
  Client client(target_);
  client.Init();
  ASSERT_TRUE(client.Store(1, 4, {"abcd"}).ok());
  client.Ask(MakeArray(1, 1));
  {
    absl::MutexLock lock(&runtime_.mu);
    runtime_.hold_ready = true;
  }
  const uint64_t slow = client.Send(Ready(1));
  IfrtRequest deleted;
  deleted.mutable_is_array_deleted_request()->set_array_handle(1);
  EXPECT_TRUE(client.Ask(deleted).has_is_array_deleted_response());
  runtime_.ReleaseReady();
  EXPECT_EQ(client.Receive().response_metadata().op_id(), slow);
}

TEST_F(ProxyTest, ManyRequestsComeBackComplete) {
  Options options;
  options.max_queued_replies = 4;  // reading stops and goes on many times
  Start(std::move(options));
  Client client(target_);
  client.Init();
  constexpr int kRequests = 5000;
  std::thread writer([&] {
    for (int i = 0; i < kRequests; ++i) client.Send(Destruct(1000 + i));
  });
  std::set<uint64_t> seen;
  for (int i = 0; i < kRequests; ++i) seen.insert(client.Receive().response_metadata().op_id());
  writer.join();
  EXPECT_EQ(seen.size(), static_cast<size_t>(kRequests));
}

TEST_F(ProxyTest, AVanishingClientClosesItsSession) {
  Start();
  {
    Client quiet(target_);  // never says anything
  }
  {
    Client client(target_);
    client.Init();
    EXPECT_EQ(client.Finish().error_code(), grpc::StatusCode::OK);
  }
  ASSERT_TRUE(runtime_.WaitClosed(1));
  {
    Client client(target_);
    client.Init();
    EXPECT_TRUE(client.Ask(MakeArray(5, 1)).has_make_array_from_host_buffer_response());
    {
      absl::MutexLock lock(&runtime_.mu);
      runtime_.hold_ready = true;
    }
    client.Send(Ready(5));  // will never be answered
    client.Vanish();
    ASSERT_TRUE(runtime_.WaitClosed(2));
  }
  EXPECT_THAT(runtime_.opened, ElementsAre(1, 2));
  EXPECT_THAT(runtime_.closed, ElementsAre(1, 2));
  // The array that waited for its bytes was told, and the streams are gone.
  ASSERT_TRUE(proxy_->Shutdown(absl::Now() + absl::Seconds(20)).ok());
  EXPECT_EQ(runtime_.ErrorOf(5).code(), absl::StatusCode::kCancelled);
}

TEST_F(ProxyTest, ShutdownEndsSessionsAndRefusesNewOnes) {
  Start();
  Client client(target_);
  client.Init();
  ASSERT_TRUE(proxy_->Shutdown(absl::Now() + absl::Seconds(20)).ok());
  EXPECT_EQ(client.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(runtime_.closed, ElementsAre(1));
  Client late(target_);
  EXPECT_EQ(late.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace causeway::proxy
