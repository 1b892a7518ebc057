// Tests of the null server's answers: what a client would otherwise report as a strange hang.
#include "bench/null_server/null_session.h"

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace causeway::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class NullSessionTest : public ::testing::Test {
 protected:
  // Sends one request, with the next operation id, and the user context 100 + that id.
  ifrt::IfrtRequest& New() {
    request_.Clear();
    request_.mutable_request_metadata()->set_op_id(++op_);
    request_.mutable_request_metadata()->set_user_context_id(100 + op_);
    return request_;
  }
  void Send() { session_.Handle(request_); }
  const ifrt::IfrtResponse& last() { return replies_.back(); }
  int last_code() { return last().response_metadata().status().code(); }

  void MakeArray(uint64_t handle) {
    auto* make = New().mutable_make_array_from_host_buffer_request();
    make->mutable_dtype()->set_kind(11);
    make->mutable_shape()->add_dims(3);
    make->set_sharding("a sharding");
    make->set_host_buffer_handle(handle);
    make->set_array_handle(handle);
    Send();
  }
  uint64_t Compile(const std::string& program) {
    New().mutable_compile_request()->mutable_program()->set_data(program);
    Send();
    return last().compile_response().loaded_executable_handle();
  }
  void Execute(uint64_t executable, std::vector<uint64_t> args, std::vector<uint64_t> results) {
    auto* execute = New().mutable_loaded_executable_execute_request();
    execute->set_loaded_executable_handle(executable);
    for (uint64_t arg : args) execute->add_args_handles(arg);
    for (uint64_t result : results) execute->add_result_array_handle(result);
    Send();
  }
  void AskReady(uint64_t array) {
    New().mutable_check_value_ready_request()->add_value_handles(array);
    Send();
  }

  std::vector<ifrt::IfrtResponse> replies_;
  NullSession session_{7, 1, [this](ifrt::IfrtResponse r) { replies_.push_back(std::move(r)); }};
  ifrt::IfrtRequest request_;
  uint64_t op_ = 0;
};

TEST_F(NullSessionTest, FirstExecutionDescribesItsOutputsAndLaterOnesUseTheClientsNames) {
  MakeArray(1);
  const uint64_t executable = Compile("... jit_step_outputs_2\n...");
  Execute(executable, {1}, {});
  ASSERT_THAT(last().loaded_executable_execute_response().outputs(), SizeIs(2));
  const auto& output = last().loaded_executable_execute_response().outputs(1);
  EXPECT_EQ(output.dtype().kind(), 11);
  EXPECT_THAT(output.shape().dims(), ElementsAre(3));
  EXPECT_EQ(output.sharding(), "a sharding");
  EXPECT_GE(output.array_handle(), uint64_t{1} << 48);
  Execute(executable, {output.array_handle()}, {20, 21});
  EXPECT_THAT(last().loaded_executable_execute_response().outputs(), IsEmpty());
  Execute(executable, {21}, {22, 23});
  EXPECT_EQ(last_code(), 0);
}

TEST_F(NullSessionTest, WithoutANumberInItsNameAProgramHasAsManyOutputsAsArguments) {
  MakeArray(1);
  MakeArray(2);
  Execute(Compile("jit_step"), {1, 2}, {});
  EXPECT_THAT(last().loaded_executable_execute_response().outputs(), SizeIs(2));
}

TEST_F(NullSessionTest, ADroppedArrayIsNoArgument) {
  MakeArray(1);
  const uint64_t executable = Compile("jit_step");
  New().mutable_destruct_array_request()->add_array_handle(1);
  Send();
  Execute(executable, {1}, {});
  EXPECT_EQ(last_code(), static_cast<int>(absl::StatusCode::kInvalidArgument));
}

TEST_F(NullSessionTest, AnArrayIsReadyWhenItsUploadHasCome) {
  MakeArray(1);
  AskReady(1);
  const size_t before = replies_.size();
  session_.Uploaded(1);
  ASSERT_THAT(replies_, SizeIs(before + 1));
  EXPECT_TRUE(last().has_check_value_ready_response());
  EXPECT_EQ(last().response_metadata().op_id(), op_);
  session_.Uploaded(2);  // this time the bytes come first
  MakeArray(2);
  AskReady(2);
  EXPECT_TRUE(last().has_check_value_ready_response());
}

TEST_F(NullSessionTest, AReadHasTheSizeOfTheArray) {
  MakeArray(1);
  auto* copy = New().mutable_copy_to_host_buffer_request();
  copy->set_array_handle(1);
  copy->set_host_buffer_handle(9);
  Send();
  EXPECT_EQ(session_.HostBufferSize(9).value(), 12);
  session_.DeleteHostBuffer(9);
  EXPECT_FALSE(session_.HostBufferSize(9).ok());
}

TEST_F(NullSessionTest, SequenceNumbersHaveNoGapAndEveryContextIsReleasedOnce) {
  New().mutable_init_request();
  Send();
  MakeArray(1);
  New().mutable_destruct_array_request()->add_array_handle(1);
  Send();
  New().mutable_get_default_layout_request();
  Send();
  ASSERT_THAT(replies_, SizeIs(4));
  EXPECT_EQ(replies_[0].response_metadata().seq_num(), 0);
  EXPECT_EQ(replies_[1].response_metadata().seq_num(), 1);
  EXPECT_EQ(replies_[3].response_metadata().seq_num(), 2);
  EXPECT_THAT(replies_[2].response_metadata().destroyed_user_context_ids(), IsEmpty());
  EXPECT_THAT(replies_[3].response_metadata().destroyed_user_context_ids(), ElementsAre(103, 104));
}

TEST_F(NullSessionTest, WhatItDoesNotKnowItRefuses) {
  New().mutable_remap_arrays_request();
  Send();
  EXPECT_EQ(last_code(), static_cast<int>(absl::StatusCode::kUnimplemented));
}

}  // namespace
}  // namespace causeway::bench
