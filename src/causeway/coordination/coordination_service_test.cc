// Tests of the coordination service over real gRPC.
#include "causeway/coordination/coordination_service.h"

#include <grpcpp/grpcpp.h>

#include <future>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "coordination.grpc.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace causeway::coordination {
namespace {

namespace pb = xla::coordination;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CoordinationServiceTest : public ::testing::Test {
 protected:
  CoordinationServiceTest() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(service_.service());
    server_ = builder.BuildAndStart();
    stub_ = pb::CoordinationService::NewStub(grpc::CreateChannel(
        absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials()));
  }
  ~CoordinationServiceTest() override {
    service_.Shutdown();
    server_->Shutdown(absl::ToChronoTime(absl::Now() + absl::Seconds(5)));
  }

  // One call with a bound of its own.
  template <class Method, class Request, class Response>
  grpc::Status Call(Method method, const Request& request, Response* response) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(30)));
    return ((*stub_).*method)(&context, request, response);
  }
  grpc::Status Insert(const std::string& key, const std::string& value, bool overwrite = false) {
    pb::InsertKeyValueRequest request;
    request.mutable_kv()->set_key(key);
    request.mutable_kv()->set_value(value);
    request.set_allow_overwrite(overwrite);
    pb::InsertKeyValueResponse response;
    return Call(&pb::CoordinationService::Stub::InsertKeyValue, request, &response);
  }
  struct Got {
    grpc::Status status;
    std::string value;
  };
  std::future<Got> GetLater(const std::string& key) {
    return std::async(std::launch::async, [this, key] {
      pb::GetKeyValueRequest request;
      request.set_key(key);
      pb::GetKeyValueResponse response;
      Got got;
      got.status = Call(&pb::CoordinationService::Stub::GetKeyValue, request, &response);
      got.value = response.kv().value();
      return got;
    });
  }
  // The server holds the call once the store counts it.
  void AwaitWaiters(int64_t n) {
    while (service_.store().num_waiters() < n) std::this_thread::yield();
  }

  RealTimers timers_;
  FakeRandom random_{1};
  CoordinationService service_{timers_, random_};
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<pb::CoordinationService::Stub> stub_;
};

TEST_F(CoordinationServiceTest, RegistersAtOnceAndKeepsItsIncarnation) {
  pb::RegisterTaskRequest request;
  request.set_source_task_id(3);
  request.set_incarnation(77);
  pb::RegisterTaskResponse registered;
  ASSERT_TRUE(Call(&pb::CoordinationService::Stub::RegisterTask, request, &registered).ok());
  EXPECT_NE(registered.service_incarnation(), 0u);
  pb::HeartbeatResponse beat;
  ASSERT_TRUE(
      Call(&pb::CoordinationService::Stub::Heartbeat, pb::HeartbeatRequest(), &beat).ok());
  EXPECT_EQ(beat.service_incarnation(), registered.service_incarnation());
}

TEST_F(CoordinationServiceTest, AHeldGetIsAnsweredByAnInsert) {
  std::future<Got> got = GetLater("k");
  AwaitWaiters(1);
  ASSERT_TRUE(Insert("k", std::string("\0v", 2)).ok());
  const Got answer = got.get();
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.value, std::string("\0v", 2));
  EXPECT_EQ(Insert("k", "w").error_code(), grpc::StatusCode::ALREADY_EXISTS);
}

TEST_F(CoordinationServiceTest, ACancelledGetLeavesNothingBehind) {
  grpc::ClientContext context;
  std::future<grpc::Status> got = std::async(std::launch::async, [&] {
    pb::GetKeyValueRequest request;
    request.set_key("k");
    pb::GetKeyValueResponse response;
    return stub_->GetKeyValue(&context, request, &response);
  });
  AwaitWaiters(1);
  context.TryCancel();
  EXPECT_EQ(got.get().error_code(), grpc::StatusCode::CANCELLED);
  while (service_.store().num_waiters() > 0) std::this_thread::yield();
}

TEST_F(CoordinationServiceTest, TheEndOfAnEpochFreesAllWhoWaitAndKeepsTheTopology) {
  TopologyOptions options;
  options.shape.slices = 2;
  ASSERT_TRUE(service_.PublishTopology(options).ok());
  service_.Begin(1);
  service_.Begin(65);
  ASSERT_TRUE(Insert("cpu:gloo/2048,133120/0", "address").ok());
  std::future<Got> got = GetLater("cpu:gloo/2048,133120/1");
  AwaitWaiters(1);
  service_.EndEpoch(absl::DataLossError("slice 1 is lost"));
  const Got answer = got.get();
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_THAT(answer.status.error_message(), HasSubstr("slice 1 is lost"));
  EXPECT_EQ(service_.store().num_keys(), 1);
  EXPECT_TRUE(service_.store().TryGet("cpu:global_topology/cpu").ok());
  EXPECT_TRUE(service_.tasks().Alive().empty());
}

TEST_F(CoordinationServiceTest, WhoComesLateToAnEpochsMeetingDoesNotWait) {
  service_.Begin(1);
  service_.Begin(65);
  service_.EndEpoch(absl::DataLossError("slice 1 is lost"));
  service_.Begin(2);
  service_.Begin(66);
  const Got late = GetLater("cpu:gloo/2048,133120/1").get();
  EXPECT_EQ(late.status.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_THAT(late.status.error_message(), HasSubstr("slice 1 is lost"));
  EXPECT_EQ(service_.store().num_waiters(), 0);
  // The next epoch's own meetings are waited for, and so are other keys.
  std::future<Got> got = GetLater("cpu:gloo/4096,135168/1");
  std::future<Got> other = GetLater("cpu:other/2048,133120/1");
  AwaitWaiters(2);
  ASSERT_TRUE(Insert("cpu:gloo/4096,135168/1", "address").ok());
  ASSERT_TRUE(Insert("cpu:other/2048,133120/1", "value").ok());
  EXPECT_EQ(got.get().value, "address");
  EXPECT_EQ(other.get().value, "value");
}

TEST_F(CoordinationServiceTest, SaysWhoIsAlive) {
  service_.Begin(1);
  service_.Begin(65);
  service_.Begin(129);
  service_.tasks().SetIncarnation(65, 5);
  service_.tasks().End(129, absl::AbortedError("gone"));
  pb::GetAliveTasksRequest request;
  for (int id : {1, 65, 129}) request.add_task_ids(id);
  pb::GetAliveTasksResponse alive;
  ASSERT_TRUE(Call(&pb::CoordinationService::Stub::GetAliveTasks, request, &alive).ok());
  EXPECT_THAT(alive.alive_task_ids(), ElementsAre(1, 65));
  EXPECT_THAT(alive.incarnations(), ElementsAre(0, 5));
  pb::WatchTasksRequest watch;
  watch.set_version_number(-1);
  pb::WatchTasksResponse state;
  ASSERT_TRUE(Call(&pb::CoordinationService::Stub::WatchTasks, watch, &state).ok());
  ASSERT_EQ(state.task_state_size(), 3);
  EXPECT_EQ(state.task_state(0).state(), pb::CONNECTED);
  EXPECT_EQ(state.task_state(2).state(), pb::ERROR);
  EXPECT_EQ(state.task_state(2).error_message(), "gone");
}

TEST_F(CoordinationServiceTest, BarriersJoinCalls) {
  auto arrive = [this](int task, int64_t timeout_ms) {
    return std::async(std::launch::async, [this, task, timeout_ms] {
      pb::BarrierRequest request;
      request.set_barrier_id("b");
      request.set_counter(timeout_ms);
      request.set_barrier_timeout_in_ms(timeout_ms);
      request.set_source_task_id(task);
      request.add_task_ids(1);
      request.add_task_ids(2);
      pb::BarrierResponse response;
      return Call(&pb::CoordinationService::Stub::Barrier, request, &response).error_code();
    });
  };
  auto first = arrive(1, 20'000);
  auto second = arrive(2, 20'000);
  EXPECT_EQ(first.get(), grpc::StatusCode::OK);
  EXPECT_EQ(second.get(), grpc::StatusCode::OK);
  EXPECT_EQ(arrive(1, 5).get(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(CoordinationServiceTest, APollForErrorsEndsWithCancelledAtOnce) {
  // A poll that is held breaks when the head dies, and XLA's client would end the worker with it.
  pb::PollForErrorResponse response;
  EXPECT_EQ(Call(&pb::CoordinationService::Stub::PollForError, pb::PollForErrorRequest(), &response)
                .error_code(),
            grpc::StatusCode::CANCELLED);
}

TEST_F(CoordinationServiceTest, DirectoriesAndNumbers) {
  ASSERT_TRUE(Insert("d/a", "1").ok());
  ASSERT_TRUE(Insert("d/b", "2").ok());
  pb::GetKeyValueDirRequest request;
  request.set_directory_key("d");
  pb::GetKeyValueDirResponse entries;
  ASSERT_TRUE(Call(&pb::CoordinationService::Stub::GetKeyValueDir, request, &entries).ok());
  ASSERT_EQ(entries.kv_size(), 2);
  EXPECT_EQ(entries.kv(1).key(), "d/b");
  pb::IncrementKeyValueRequest increment;
  increment.set_key("d/a");
  increment.set_increment(4);
  pb::IncrementKeyValueResponse incremented;
  ASSERT_TRUE(
      Call(&pb::CoordinationService::Stub::IncrementKeyValue, increment, &incremented).ok());
  EXPECT_EQ(incremented.kv().value(), "5");
  pb::DeleteKeyValueRequest remove;
  remove.set_key("d");
  remove.set_is_directory(true);
  pb::DeleteKeyValueResponse removed;
  ASSERT_TRUE(Call(&pb::CoordinationService::Stub::DeleteKeyValue, remove, &removed).ok());
  pb::TryGetKeyValueRequest get;
  get.set_key("d/a");
  pb::TryGetKeyValueResponse got;
  EXPECT_EQ(Call(&pb::CoordinationService::Stub::TryGetKeyValue, get, &got).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

}  // namespace
}  // namespace causeway::coordination
