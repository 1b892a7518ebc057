// One function a request kind; each answers its call exactly once, now or later.
//
// All are called in stream order on the session's read callback and never block.
#pragma once

#include "causeway/proxy/session.h"
#include "ifrt_session.pb.h"

namespace causeway::proxy {

// init_handlers.cc: the session's start and questions about devices.
void HandleInit(Call call);
void HandleDefaultDeviceAssignment(Call call, const ifrt::DefaultDeviceAssignmentRequest& request);
void HandleDefaultLayout(Call call, const ifrt::DefaultLayoutRequest& request);

// make_array_handlers.cc: arrays from host bytes and from nothing.
void HandleMakeArray(Call call, const ifrt::MakeArrayFromHostBufferRequest& request);
void HandleMakeArraysFromShards(Call call, const ifrt::MakeArraysFromShardsRequest& request);
void HandleMakeErrorArrays(Call call, const ifrt::MakeErrorArraysRequest& request);

// array_handlers.cc: arrays from arrays.
void HandleAssemble(Call call, const ifrt::AssembleRequest& request);
void HandleDisassemble(Call call, const ifrt::DisassembleRequest& request);
void HandleFullyReplicatedShard(Call call, const ifrt::FullyReplicatedShardRequest& request);
void HandleCopyArrays(Call call, const ifrt::CopyArraysRequest& request);
void HandleRemapArrays(Call call, const ifrt::RemapArraysRequest& request);
void HandleReshardArrays(Call call, const ifrt::RespecArraysRequest& request);
void HandleBitcastArrays(Call call, const ifrt::RespecArraysRequest& request);

// value_handlers.cc: waiting, reading, deleting, futures.
void HandleCheckFuture(Call call, const ifrt::FutureRequest& request);
void HandleCheckValueReady(Call call, const ifrt::CheckValueReadyRequest& request);
void HandleCopyToHostBuffer(Call call, const ifrt::CopyToHostBufferRequest& request);
void HandleDeleteArray(Call call, const ifrt::ArrayListRequest& request);
void HandleIsArrayDeleted(Call call, const ifrt::ArrayRequest& request);
void HandleDestructArray(Call call, const ifrt::ArrayListRequest& request);

// compile_handlers.cc: programs.
void HandleCompile(Call call, const ifrt::CompileRequest& request);
void HandleMetadata(Call call, const ifrt::ExecutableRequest& request);
void HandleCostAnalysis(Call call, const ifrt::ExecutableRequest& request);
void HandleProgramText(Call call, const ifrt::ExecutableRequest& request);
void HandleExecutableDelete(Call call, const ifrt::ExecutableRequest& request);
void HandleExecutableIsDeleted(Call call, const ifrt::ExecutableRequest& request);
void HandleExecutableDestruct(Call call, const ifrt::ExecutableRequest& request);

// execute_handlers.cc: running programs.
void HandleExecute(Call call, const ifrt::ExecuteRequest& request);
void HandleFetchExecuteResult(Call call, const ifrt::FetchExecuteResultRequest& request);

}  // namespace causeway::proxy
