// XLA's FFI handler for host callbacks: sends the operands to the client, returns a future.
//
// Registered under the two names that XLA's partitioners treat specially (see worker/callbacks.py).
// It exports C functions only; Python finds them with ctypes.
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/types/span.h"
#include "causeway/base/check.h"
#include "causeway/callbacks/held_runs.h"
#include "causeway/callbacks/link.h"
#include "causeway/callbacks/programs.h"
#include "xla/ffi/api/ffi.h"

namespace causeway::callbacks {
namespace {

namespace ffi = xla::ffi;

constexpr size_t kAlignment = 64;  // of operands in a message, so that NumPy can use them in place

// The process's link. Never destroyed: XLA may run callbacks until the process ends.
Link& TheLink() {
  static Link* link = new Link;
  return *link;
}

// XLA packs these, first element in the low bits; 0 for all others.
int PackedBits(ffi::DataType type) {
  switch (type) {
    case ffi::DataType::S1:
    case ffi::DataType::U1:
      return 1;
    case ffi::DataType::S2:
    case ffi::DataType::U2:
      return 2;
    case ffi::DataType::S4:
    case ffi::DataType::U4:
    case ffi::DataType::F4E2M1FN:
      return 4;
    default:
      return 0;
  }
}

size_t Bytes(const ffi::AnyBuffer& buffer) {
  if (buffer.element_type() == ffi::DataType::TOKEN) return 0;
  const size_t elements = buffer.element_count();
  const int bits = PackedBits(buffer.element_type());
  return bits != 0 ? (elements * bits + 7) / 8 : elements * ffi::ByteWidth(buffer.element_type());
}

// Message: u64 group, u32 index, i32 device, i64 run, u32 operands, u32 whether the run has this
// number on all workers; then for each operand u32 type, u32 rank, u64 bytes, i64 dimensions; then
// the operands' bytes, each aligned.
void AppendHead(std::string& out, uint64_t group, uint32_t index, int32_t device, int64_t run,
                bool shared, const std::vector<ffi::AnyBuffer>& operands) {
  AppendInt<uint64_t>(out, group);
  AppendInt<uint32_t>(out, index);
  AppendInt<int32_t>(out, device);
  AppendInt<int64_t>(out, run);
  AppendInt<uint32_t>(out, static_cast<uint32_t>(operands.size()));
  AppendInt<uint32_t>(out, shared ? 1 : 0);
  for (const ffi::AnyBuffer& b : operands) {
    AppendInt<uint32_t>(out, static_cast<uint32_t>(b.element_type()));
    AppendInt<uint32_t>(out, static_cast<uint32_t>(b.dimensions().size()));
    AppendInt<uint64_t>(out, Bytes(b));
    for (int64_t d : b.dimensions()) AppendInt<int64_t>(out, d);
  }
}

std::string Message(uint64_t group, uint32_t index, int32_t device, int64_t run, bool shared,
                    const std::vector<ffi::AnyBuffer>& operands) {
  std::string out;
  AppendHead(out, group, index, device, run, shared, operands);
  size_t total = out.size();
  for (const ffi::AnyBuffer& b : operands) {
    total = (total + kAlignment - 1) / kAlignment * kAlignment + Bytes(b);
  }
  out.reserve(total);
  for (const ffi::AnyBuffer& b : operands) {
    out.resize((out.size() + kAlignment - 1) / kAlignment * kAlignment);
    if (Bytes(b) != 0) out.append(static_cast<const char*>(b.untyped_data()), Bytes(b));
  }
  return out;
}

// Exists as long as an instantiated custom call does: keeps the client's function.
struct Instance {
  static ffi::TypeId id;
  static ffi::TypeInfo info;

  Instance(ProgramGroup g, uint64_t i) : group(std::move(g)), index(i) {
    TheLink().Use(group.token, group.group);
  }
  ~Instance() { TheLink().Unuse(group.token, group.group); }
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;

  const ProgramGroup group;
  const uint64_t index;
};
ffi::TypeId Instance::id = {};
ffi::TypeInfo Instance::info = ffi::MakeTypeInfo<Instance>();

ffi::ErrorOr<std::unique_ptr<Instance>> Instantiate(uint64_t index, std::string_view channel) {
  std::optional<ProgramGroup> group = ParseChannel({channel.data(), channel.size()});
  if (!group.has_value()) {
    return ffi::Unexpected<ffi::Error>(
        ffi::Error(ffi::ErrorCode::kInvalidArgument,
                   "host callback: the attribute channel is none of Causeway's; use the client "
                   "package that came with this cluster"));
  }
  return std::make_unique<Instance>(*std::move(group), index);
}

// The launches in this process. Never destroyed: XLA may run callbacks until the process ends.
HeldRuns& TheRuns() {
  static auto* const runs = new HeldRuns;
  return *runs;
}

ffi::Error ToError(const absl::Status& status) {
  return ffi::Error(static_cast<ffi::ErrorCode>(status.code()), std::string(status.message()));
}

// What a callback leaves behind that is not made, or has failed.
void Settle(ffi::Promise& promise, const std::vector<absl::Span<char>>& results,
            const absl::Status& failure, bool zeros) {
  if (!zeros) {
    promise.SetError(ToError(failure));
    return;
  }
  for (const absl::Span<char> result : results) {
    if (!result.empty()) std::memset(result.data(), 0, result.size());
  }
  promise.SetAvailable();
}

template <typename Buffers, typename Get>
ffi::Error Collect(const Buffers& from, std::vector<ffi::AnyBuffer>& to, Get get) {
  for (size_t i = 0; i < from.size(); ++i) {
    auto buffer = from.template get<ffi::AnyBuffer>(i);
    if (!buffer.has_value()) return buffer.error();
    to.push_back(get(*buffer));
  }
  return ffi::Error::Success();
}

ffi::Future OnHost(ffi::RunId run, int32_t device, Instance* instance, ffi::RemainingArgs args,
                   ffi::RemainingRets rets) {
  ffi::Promise promise;
  ffi::Future future(promise);
  std::vector<ffi::AnyBuffer> operands, results;
  ffi::Error error = Collect(args, operands, [](ffi::AnyBuffer b) { return b; });
  if (error.success()) {
    error = Collect(rets, results, [](ffi::Result<ffi::AnyBuffer> b) { return *b; });
  }
  if (error.failure()) {
    promise.SetError(std::move(error));
    return future;
  }
  std::vector<absl::Span<char>> places;
  for (ffi::AnyBuffer& b : results) {
    places.emplace_back(static_cast<char*>(b.untyped_data()), Bytes(b));
  }
  const HeldRuns::Found found = TheRuns().Find(run.run_id, absl::Now());
  if (!found.failure.ok()) {
    Settle(promise, places, found.failure, found.zeros);
    return future;
  }
  std::string message = Message(instance->group.group, static_cast<uint32_t>(instance->index),
                                device, run.run_id, found.shared, operands);
  TheLink().Call(instance->group.token, std::move(message), places,
                 [promise, places, run = run.run_id](absl::Status status) mutable {
                   if (status.ok()) {
                     promise.SetAvailable();
                   } else {
                     Settle(promise, places, status, TheRuns().Fail(run, status, absl::Now()));
                   }
                 });
  return future;
}

}  // namespace
}  // namespace causeway::callbacks

XLA_FFI_DEFINE_HANDLER_SYMBOL(causeway_callbacks_instantiate, causeway::callbacks::Instantiate,
                              xla::ffi::Ffi::BindInstantiate()
                                  .Attr<uint64_t>("callback_id")
                                  .Attr<std::string_view>("channel"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(causeway_callbacks_execute, causeway::callbacks::OnHost,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::RunId>()
                                  .Ctx<xla::ffi::DeviceOrdinal>()
                                  .Ctx<xla::ffi::State<causeway::callbacks::Instance>>()
                                  .RemainingArgs()
                                  .RemainingRets());

extern "C" {

void* causeway_callbacks_type_id() { return &causeway::callbacks::Instance::id; }
void* causeway_callbacks_type_info() { return &causeway::callbacks::Instance::info; }

// Connects this process to the head's relay, in the background. Call once.
void causeway_callbacks_start(const char* host, int port, int worker) {
  causeway::callbacks::TheLink().Start(
      {.host = host, .port = port, .worker = static_cast<uint64_t>(worker)});
}

// Whether the connection to the relay is there within so many seconds.
int causeway_callbacks_wait(double seconds) {
  return causeway::callbacks::TheLink().WaitConnected(absl::Seconds(seconds)).ok() ? 1 : 0;
}

// The three calls of the worker, see held_runs.h. The last two tell a failure, if there is one,
// before they return.
using CausewayTell = void (*)(void* context, int code, const char* text, size_t size);
static void TellFailure(const absl::Status& failure, CausewayTell tell, void* context) {
  if (failure.ok()) return;
  tell(context, static_cast<int>(failure.code()), failure.message().data(),
       failure.message().size());
}
void causeway_callbacks_hold(int64_t run, int shared) {
  causeway::callbacks::TheRuns().Hold(run, shared != 0);
}
void causeway_callbacks_release(int64_t run, CausewayTell tell, void* context) {
  TellFailure(causeway::callbacks::TheRuns().Release(run), tell, context);
}
void causeway_callbacks_overdue(CausewayTell tell, void* context) {
  TellFailure(causeway::callbacks::TheRuns().Overdue(absl::Now()), tell, context);
}

// Whether the TCP connection with this local port is the one to the relay.
int causeway_callbacks_owns(int local_port) {
  return causeway::callbacks::TheLink().Owns(local_port) ? 1 : 0;
}
}
