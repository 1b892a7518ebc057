// Reads Hello.
#include "causeway/controller/hello_codec.h"

#include "control.pb.h"

namespace causeway::controller {

absl::StatusOr<Greeting> DecodeGreeting(absl::string_view bytes) {
  control::Event event;
  if (!event.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) || !event.has_hello()) {
    return absl::InvalidArgumentError("no Hello");
  }
  const control::Hello& hello = event.hello();
  Greeting greeting;
  core::WorkerHello& h = greeting.hello;
  h.worker = WorkerId(hello.worker());
  h.pid = hello.pid();
  h.host = hello.host();
  h.data_address = hello.data_address();
  h.platform = hello.platform();
  h.device_kind = hello.device_kind();
  h.memory_kinds = {hello.memory_kinds().begin(), hello.memory_kinds().end()};
  h.runtime_version = hello.runtime_version();
  h.compile_target = hello.compile_target();
  h.memory = hello.memory();
  h.num_devices = hello.num_devices();
  h.spare = hello.spare();
  greeting.token = hello.token();
  return greeting;
}

}  // namespace causeway::controller
