// Programs over real gRPC: compile, metadata, first and later executions.

#include "causeway/proxy/proxy_test_client.h"
#include "causeway/wire/ifrt_sharding.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace causeway::proxy {
namespace {

using ::testing::ElementsAre;

TEST_F(ProxyTest, CompilesDescribesAndRuns) {
  Start();
  Client client(target_);
  client.Init();
  const IfrtResponse compiled = client.Ask(CompileFor({3, 1}));
  ASSERT_TRUE(compiled.has_compile_response()) << compiled.DebugString();
  const ifrt::CompileResponse& program = compiled.compile_response();
  EXPECT_GE(program.loaded_executable_handle(), kServer);
  EXPECT_EQ(program.num_devices(), 2);
  EXPECT_THAT(program.device_ids(), ElementsAre(3, 1));
  EXPECT_THAT(program.addressable_device_ids(), ElementsAre(3, 1));
  EXPECT_THAT(runtime_.last_compile.devices, ElementsAre(DeviceId(3), DeviceId(1)));

  IfrtRequest future;
  future.mutable_check_future_request()->set_future_handle(program.ready_future_handle());
  EXPECT_TRUE(client.Ask(future).has_check_future_response());
  EXPECT_EQ(Code(client.Ask(future)), absl::StatusCode::kNotFound);

  IfrtRequest ask;
  ask.mutable_loaded_executable_metadata_request()->set_loaded_executable_handle(
      program.loaded_executable_handle());
  const IfrtResponse answer = client.Ask(ask);
  const auto& metadata = answer.loaded_executable_metadata_response();
  EXPECT_TRUE(metadata.has_parameter_layouts_error());
  EXPECT_THAT(metadata.output_layouts_list().layouts(0).minor_to_major(), ElementsAre(1, 0));
  EXPECT_THAT(metadata.donated_input_indices().donated_input_indices(), ElementsAre(1));
  EXPECT_EQ(metadata.compiled_memory_stats().temp_size_in_bytes(), 7);
  EXPECT_EQ(metadata.output_memory_kinds().memory_kind_lists(0).memory_kinds(0), "device");

  // First execution: the server names the outputs and tells what they are.
  const IfrtResponse first = client.Ask(Execute(program.loaded_executable_handle()));
  ASSERT_EQ(first.loaded_executable_execute_response().outputs_size(), 1) << first.DebugString();
  const auto& output = first.loaded_executable_execute_response().outputs(0);
  EXPECT_GE(output.array_handle(), kServer);
  EXPECT_EQ(output.dtype().kind(), 11);
  EXPECT_THAT(output.shape().dims(), ElementsAre(4, 2));
  auto sharding = wire::ParseSharding(output.sharding());
  ASSERT_TRUE(sharding.ok());
  EXPECT_EQ((*sharding)->kind(), model::Sharding::Kind::kHlo);
  EXPECT_EQ((*sharding)->memory_kind(), "device");
  EXPECT_THAT(*(*sharding)->ShardShape({4, 2}, 0), ElementsAre(2, 2));
  EXPECT_EQ(first.loaded_executable_execute_response().status_handle(), 0u);

  // Later: the client names them and gets an empty reply.
  IfrtRequest later = Execute(program.loaded_executable_handle(), {5});
  later.mutable_loaded_executable_execute_request()->add_args_handles(output.array_handle());
  later.mutable_loaded_executable_execute_request()
      ->mutable_execute_options()
      ->add_non_donatable_input_indices(0);
  const IfrtResponse second = client.Ask(later);
  ASSERT_TRUE(second.has_loaded_executable_execute_response());
  EXPECT_EQ(second.loaded_executable_execute_response().ByteSizeLong(), 0u);
  EXPECT_TRUE(runtime_.Logged("execute args 1 keep 0"));
  EXPECT_TRUE(client.Ask(Ready(5)).has_check_value_ready_response());

  IfrtRequest costs;
  costs.mutable_loaded_executable_cost_analysis_request()->set_loaded_executable_handle(
      program.loaded_executable_handle());
  EXPECT_EQ(client.Ask(costs)
                .loaded_executable_cost_analysis_response()
                .attributes()
                .attributes()
                .at("flops")
                .float_value(),
            8);
  EXPECT_EQ(Code(client.Ask(CompileFor({0}, "bad"))), absl::StatusCode::kInvalidArgument);
}

TEST_F(ProxyTest, OneDeviceOutputsAreSingleDeviceAndStatusesAreOneShot) {
  Start();
  Client client(target_);
  client.Init();
  const uint64_t program =
      client.Ask(CompileFor({6})).compile_response().loaded_executable_handle();
  IfrtRequest execute = Execute(program);
  execute.mutable_loaded_executable_execute_request()->mutable_execute_options()->set_fill_status(
      true);
  const IfrtResponse response = client.Ask(execute);
  const auto& reply = response.loaded_executable_execute_response();
  auto sharding = wire::ParseSharding(reply.outputs(0).sharding());
  ASSERT_TRUE(sharding.ok());
  EXPECT_EQ((*sharding)->kind(), model::Sharding::Kind::kSingleDevice);
  EXPECT_EQ((*sharding)->devices().front(), DeviceId(6));
  ASSERT_GE(reply.status_handle(), kServer);
  IfrtRequest fetch;
  fetch.mutable_loaded_executable_fetch_execute_result_request()->set_result_status_handle(
      reply.status_handle());
  EXPECT_EQ(client.Ask(fetch)
                .loaded_executable_fetch_execute_result_response()
                .device_time()
                .at("gpu"),
            1.5);
  EXPECT_EQ(Code(client.Ask(fetch)), absl::StatusCode::kNotFound);
}

TEST_F(ProxyTest, OldProtocolsAwaitExecutionsAsFutures) {
  Start();
  Client client(target_, /*protocol=*/20);
  client.Init();
  const uint64_t program =
      client.Ask(CompileFor({6})).compile_response().loaded_executable_handle();
  IfrtRequest execute = Execute(program);
  execute.mutable_loaded_executable_execute_request()->mutable_execute_options()->set_fill_status(
      true);
  IfrtRequest future;
  future.mutable_check_future_request()->set_future_handle(
      client.Ask(execute).loaded_executable_execute_response().status_handle());
  EXPECT_TRUE(client.Ask(future).has_check_future_response());
}

}  // namespace
}  // namespace causeway::proxy
