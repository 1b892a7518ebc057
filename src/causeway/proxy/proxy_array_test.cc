// Arrays and host buffers over real gRPC: uploads, reads, errors bound to handles.
#include <fstream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "causeway/proxy/proxy_test_client.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace causeway::proxy {
namespace {

using ::testing::HasSubstr;

TEST_F(ProxyTest, ErrorsAreBoundToTheClientsHandles) {
  Start();
  Client client(target_);
  client.Init();
  // What cannot be decoded never reaches the runtime, yet its results exist.
  IfrtRequest bad = MakeArray(9, 1);
  bad.mutable_make_array_from_host_buffer_request()->set_sharding("\xff");
  EXPECT_EQ(Code(client.Ask(bad, /*user_context=*/31)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(runtime_.ErrorOf(9).code(), absl::StatusCode::kInvalidArgument);
  IfrtResponse later = client.Ask(Ready(9));
  EXPECT_EQ(Code(later), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(later.response_metadata().status().payload().at("type.googleapis.com/ifrt.UserContext"),
            "31");
  EXPECT_EQ(Code(client.Ask(Destruct(9))), absl::StatusCode::kOk);

  const uint64_t program =
      client.Ask(CompileFor({0})).compile_response().loaded_executable_handle();
  IfrtRequest portable = Execute(program, {11});
  portable.mutable_loaded_executable_execute_request()->add_device_ids(1);
  portable.mutable_loaded_executable_execute_request()->set_result_status_handle(12);
  EXPECT_EQ(Code(client.Ask(portable)), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(runtime_.ErrorOf(11).code(), absl::StatusCode::kUnimplemented);
  IfrtRequest fetch;
  fetch.mutable_loaded_executable_fetch_execute_result_request()->set_result_status_handle(12);
  EXPECT_EQ(Code(client.Ask(fetch)), absl::StatusCode::kUnimplemented);

  // Handles that are not a client's are refused, and never bound.
  EXPECT_EQ(Code(client.Ask(Execute(program, {kServer + 5}))),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(runtime_.ErrorOf(kServer + 5).code(), absl::StatusCode::kNotFound);
}

TEST_F(ProxyTest, UploadsMeetTheirArraysInEitherOrder) {
  Start();
  Client client(target_);
  client.Init();
  // Upload first.
  ASSERT_TRUE(client.Store(1, 8, {"abcd", "efgh"}).ok());
  EXPECT_TRUE(client.Ask(MakeArray(1, 2)).has_make_array_from_host_buffer_response());
  // Array first; the stream goes on meanwhile.
  EXPECT_TRUE(client.Ask(MakeArray(2, 1)).has_make_array_from_host_buffer_response());
  const uint64_t waiting = client.Send(Ready(2));
  EXPECT_TRUE(client.Ask(Ready(1)).has_check_value_ready_response());
  ASSERT_TRUE(client.Store(2, 4, {"wxyz"}).ok());
  EXPECT_EQ(client.Receive().response_metadata().op_id(), waiting);

  for (auto [array, buffer, want] : std::vector<std::tuple<uint64_t, uint64_t, std::string>>{
           {1, 21, "abcdefgh"}, {2, 22, "wxyz"}}) {
    IfrtRequest copy;
    copy.mutable_copy_to_host_buffer_request()->set_array_handle(array);
    copy.mutable_copy_to_host_buffer_request()->set_host_buffer_handle(buffer);
    EXPECT_TRUE(client.Ask(copy).has_copy_to_host_buffer_response());
    std::string bytes;
    int chunks;
    ASSERT_TRUE(client.Lookup(buffer, &bytes, &chunks).ok());
    EXPECT_EQ(bytes, want);
    EXPECT_TRUE(client.DeleteBuffer(buffer).ok());
    EXPECT_EQ(client.DeleteBuffer(buffer).error_code(), grpc::StatusCode::NOT_FOUND);
    EXPECT_EQ(client.Lookup(buffer, &bytes, &chunks).error_code(), grpc::StatusCode::NOT_FOUND);
  }
}

TEST_F(ProxyTest, LargeBuffersSurviveTheTrip) {
  Start();
  Client client(target_);
  client.Init();
  std::string data(3 * 1024 * 1024 + 17, '\0');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 2654435761u >> 13);
  std::vector<std::string> parts;
  for (size_t at = 0; at < data.size(); at += 1 << 20) parts.push_back(data.substr(at, 1 << 20));
  IfrtRequest make;
  auto* shards = make.mutable_make_arrays_from_host_buffer_shards_request();
  shards->add_array_handles(7);
  auto* spec = shards->add_specs();
  spec->mutable_array_spec()->mutable_dtype()->set_kind(6);
  spec->mutable_array_spec()->mutable_shape()->add_dims(data.size());
  spec->mutable_array_spec()->set_sharding(SingleSharding(1));
  spec->add_addressable_shard_indices()->add_indices(0);
  spec->add_host_buffers()->set_host_buffer_handle(7);
  spec->mutable_host_buffers(0)->mutable_shape()->add_dims(data.size());
  EXPECT_TRUE(client.Ask(make).has_make_arrays_from_host_buffer_shards_response());
  ASSERT_TRUE(client.Store(7, data.size(), parts).ok());
  IfrtRequest copy;
  copy.mutable_copy_to_host_buffer_request()->set_array_handle(7);
  copy.mutable_copy_to_host_buffer_request()->set_host_buffer_handle(8);
  ASSERT_TRUE(client.Ask(copy).has_copy_to_host_buffer_response());
  std::string bytes;
  int chunks;
  ASSERT_TRUE(client.Lookup(8, &bytes, &chunks).ok());
  EXPECT_TRUE(bytes == data);
  EXPECT_EQ(chunks, 13);

  // Nothing is a buffer too.
  ASSERT_TRUE(client.Store(9, 0, {}).ok());
  ASSERT_TRUE(client.Lookup(9, &bytes, &chunks).ok());
  EXPECT_EQ(bytes, "");
  EXPECT_EQ(chunks, 1);

  const Stats stats = proxy_->GetStats();
  EXPECT_EQ(stats.stores, 2u);
  EXPECT_EQ(stats.store_bytes, data.size());
  EXPECT_EQ(stats.lookups, 2u);
  EXPECT_EQ(stats.sessions_open, 1u);
  EXPECT_EQ(stats.requests.at("init"), 1u);
}

TEST_F(ProxyTest, StoreFailuresHaveTheirOwnCodes) {
  Options options;
  options.max_bytes_per_session = 16;
  Start(std::move(options));
  Client client(target_);
  client.Init();
  EXPECT_EQ(client.Store(1, 5, {"abc"}).error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(client.Store(1, 2, {"abc"}).error_code(), grpc::StatusCode::DATA_LOSS);
  ASSERT_TRUE(client.Store(1, 3, {"abc"}).ok());
  EXPECT_EQ(client.Store(1, 3, {"abc"}).error_code(), grpc::StatusCode::ALREADY_EXISTS);
  grpc::Status full = client.Store(2, 14, {});
  EXPECT_EQ(full.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(full.error_message(), HasSubstr("max_bytes_per_session"));
  EXPECT_EQ(client.ReadFromDisk(3, 1).error_code(), grpc::StatusCode::UNIMPLEMENTED);
  Client stranger(target_);  // has no session yet
  EXPECT_EQ(stranger.Store(1, 0, {}).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ProxyTest, TakesFilesFromTheSharedDirectory) {
  Options options;
  options.large_transfer_directory = ::testing::TempDir();
  Start(options);
  Client client(target_);
  client.Init();
  const std::string path = absl::StrCat(options.large_transfer_directory, "/lt_41");
  std::ofstream(path) << "from disk";
  EXPECT_EQ(client.ReadFromDisk(40, 9).error_code(), grpc::StatusCode::NOT_FOUND);
  ASSERT_TRUE(client.ReadFromDisk(41, 9).ok());
  std::string bytes;
  int chunks;
  ASSERT_TRUE(client.Lookup(41, &bytes, &chunks).ok());
  EXPECT_EQ(bytes, "from disk");
  ASSERT_TRUE(client.DeleteBuffer(41).ok());
  EXPECT_FALSE(std::ifstream(path).good()) << "the file must be gone";
}

TEST_F(ProxyTest, ArrayOperationsReachTheRuntime) {
  Start();
  Client client(target_);
  client.Init();
  ASSERT_TRUE(client.Store(1, 4, {"abcd"}).ok());
  client.Ask(MakeArray(1, 1));

  IfrtRequest shard;
  shard.mutable_fully_replicated_shard_request()->set_array_handle(1);
  shard.mutable_fully_replicated_shard_request()->set_copy_semantics(2);
  shard.mutable_fully_replicated_shard_request()->set_result_handle(2);
  EXPECT_TRUE(client.Ask(shard).has_fully_replicated_shard_response());

  IfrtRequest split;
  split.mutable_disassemble_into_single_device_arrays_request()->set_array_handle(1);
  const IfrtResponse parts = client.Ask(split);
  EXPECT_EQ(parts.disassemble_into_single_device_arrays_response().array_handles_size(), 1);
  EXPECT_GE(parts.disassemble_into_single_device_arrays_response().array_handles(0), kServer);

  IfrtRequest remap;
  auto* plan = remap.mutable_remap_arrays_request()->mutable_plan();
  auto* out = plan->add_output_specs();
  out->mutable_dtype()->set_kind(11);
  out->mutable_shape()->add_dims(1);
  out->set_sharding(SingleSharding(1));
  auto* mapping = plan->add_mappings();
  mapping->add_from_start(0);
  mapping->add_from_end(1);
  mapping->add_from_step(1);
  mapping->add_to_start(0);
  mapping->add_to_end(1);
  remap.mutable_remap_arrays_request()->add_array_handles(1);
  remap.mutable_remap_arrays_request()->add_result_handles(3);
  EXPECT_EQ(Code(client.Ask(remap)), absl::StatusCode::kInvalidArgument);  // no to_step
  EXPECT_EQ(runtime_.ErrorOf(3).code(), absl::StatusCode::kInvalidArgument);
  mapping->add_to_step(1);
  EXPECT_TRUE(client.Ask(remap).has_remap_arrays_response());
  EXPECT_TRUE(runtime_.Logged("remap 0->0 runs 1"));

  IfrtRequest reshard;
  reshard.mutable_reshard_arrays_request()->add_array_handles(1);
  *reshard.mutable_reshard_arrays_request()->add_array_specs() = *out;
  reshard.mutable_reshard_arrays_request()->add_result_handles(4);
  EXPECT_TRUE(client.Ask(reshard).has_reshard_arrays_response());

  IfrtRequest error;
  error.mutable_make_error_arrays_request()->mutable_error()->set_code(15);
  error.mutable_make_error_arrays_request()->mutable_error()->set_message("lost");
  *error.mutable_make_error_arrays_request()->add_array_specs() = *out;
  error.mutable_make_error_arrays_request()->add_array_handles(6);
  EXPECT_TRUE(client.Ask(error).has_make_error_arrays_response());
  EXPECT_EQ(runtime_.ErrorOf(6), absl::DataLossError("lost"));
}

}  // namespace
}  // namespace causeway::proxy
