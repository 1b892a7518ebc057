// The tiny language of fake programs: enough arithmetic and trouble for tests and emulated hosts.
//
// Statements are separated by newlines or ';'. Values are numbered: the inputs first, then the result
// of each instruction in order.
//
//   fake NAME                     first statement
//   inputs N
//   add I J | mul I J             elementwise, of equal element counts
//   addc I C | mulc I C           with a constant
//   const C N                     N elements of C
//   sum I                         all elements of the shard, as one
//   psum I                        elementwise over the shards of all devices (a collective)
//   fail CODE TEXT                the execution ends in this error (RESOURCE_EXHAUSTED, ...)
//   failend CODE TEXT             so does the launch, but not its outputs; a copy of value 0
//   out DTYPE[d0,d1,...] V        an output: global type, and the value it shows
//   donate I                      input I's memory is taken over
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "causeway/device/types.h"

namespace causeway::device {

struct FakeInstruction {
  enum class Op { kAdd, kMul, kAddConst, kMulConst, kConst, kSum, kPsum, kFail, kFailAtEnd };
  Op op = Op::kAdd;
  int a = 0, b = 0;       // operands
  double constant = 0;
  int64_t count = 0;      // kConst
  absl::Status error;     // kFail, kFailAtEnd
};

struct FakeProgram {
  std::string name;
  int num_inputs = 0;
  std::vector<FakeInstruction> body;
  std::vector<ArrayType> output_types;
  std::vector<int> output_values;
  std::vector<int32_t> donated;
};

// INVALID_ARGUMENT names the statement that is wrong.
absl::StatusOr<FakeProgram> ParseFakeProgram(absl::string_view text);

}  // namespace causeway::device
