// Short ways to write commands in tests.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "control.pb.h"

namespace causeway::worker::testing {

inline std::string Floats(const std::vector<float>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}
inline std::vector<float> ToFloats(const std::string& bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

// A float32 buffer over `devices`; `shards` gives this worker's values by device.
inline control::Command BuildFloats(uint64_t buffer, const std::vector<int>& devices,
                                    const std::vector<std::pair<int, std::vector<float>>>& shards) {
  control::Command command;
  auto* build = command.mutable_build();
  build->set_buffer(buffer);
  build->set_dtype(11);
  for (const int d : devices) build->add_devices(d);
  for (const auto& [device, values] : shards) {
    auto* shard = build->add_shards();
    shard->set_device(device);
    shard->add_dims(static_cast<int64_t>(values.size()));
    shard->mutable_inline_bytes()->set_data(Floats(values));
  }
  return command;
}

inline control::Command FetchOf(uint64_t request, uint64_t buffer, const std::vector<int>& devices) {
  control::Command command;
  auto* fetch = command.mutable_fetch();
  fetch->set_request(request);
  fetch->set_buffer(buffer);
  for (const int d : devices) fetch->add_devices(d);
  return command;
}

inline control::Command AwaitOf(uint64_t request, const std::vector<uint64_t>& buffers) {
  control::Command command;
  command.mutable_await_ready()->set_request(request);
  for (const uint64_t b : buffers) command.mutable_await_ready()->add_buffers(b);
  return command;
}

inline control::Command LaunchOf(uint64_t binding, uint64_t epoch, uint64_t seq,
                                 const std::vector<uint64_t>& args,
                                 const std::vector<uint64_t>& outputs, uint64_t request = 0) {
  control::Command command;
  auto* launch = command.mutable_launch();
  launch->set_binding(binding);
  launch->set_epoch(epoch);
  launch->set_seq(seq);
  launch->set_request(request);
  for (const uint64_t a : args) launch->add_args(a);
  for (const uint64_t o : outputs) launch->add_outputs(o);
  return command;
}

inline control::Command BindOf(uint64_t binding, uint64_t program, const std::vector<int>& devices,
                               int outputs) {
  control::Command command;
  auto* bind = command.mutable_bind();
  bind->set_binding(binding);
  bind->set_program(program);
  for (const int d : devices) bind->add_devices(d);
  for (int i = 0; i < outputs; ++i) bind->add_output_dtypes(11);
  return command;
}

}  // namespace causeway::worker::testing
