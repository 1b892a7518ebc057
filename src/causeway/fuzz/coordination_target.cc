// Fuzz target: the coordination service, called without a network, with time in the input's hands.
//
// Frames: 0 to 14 one call each, in the order of the service's declaration; 15 a waiting caller
// goes; 16 time passes; 17 a node begins; 18 the epoch ends.
// Checked besides crashes: when the service ends, no call is left waiting.
#include <grpcpp/test/default_reactor_test_peer.h>

#include <memory>
#include <utility>
#include <vector>

#include "causeway/base/check.h"
#include "causeway/base/clock.h"
#include "causeway/base/random.h"
#include "causeway/base/timers.h"
#include "causeway/coordination/coordination_service.h"
#include "causeway/fuzz/target.h"
#include "coordination.grpc.pb.h"

namespace causeway::fuzz {
namespace {

namespace pb = xla::coordination;
using Service = pb::CoordinationService::CallbackService;

enum Kind : uint8_t { kLastCall = 14, kDrop = 15, kTime, kBegin, kEndEpoch, kKinds };

// One call. Both messages stay until it is over, as gRPC keeps them.
struct Call {
  grpc::CallbackServerContext context;
  std::unique_ptr<grpc::testing::DefaultReactorTestPeer> peer;
  std::unique_ptr<google::protobuf::Message> request, response;
  grpc::ServerUnaryReactor* held = nullptr;  // null: answered at once
};

class Caller {
 public:
  Caller() : timers_(clock_), service_(timers_, random_) {
    coordination::TopologyOptions topology;
    (void)service_.PublishTopology(topology);
  }
  ~Caller() {
    service_.Shutdown();
    // Everything is answered now; this is gRPC's last word to a call.
    for (auto& call : held_) call->held->OnDone();
  }

  template <class Base, class Request, class Response>
  void Do(const std::string& bytes,
          grpc::ServerUnaryReactor* (Base::*method)(grpc::CallbackServerContext*, const Request*,
                                                    Response*)) {
    auto call = std::make_unique<Call>();
    call->peer = std::make_unique<grpc::testing::DefaultReactorTestPeer>(&call->context);
    auto request = std::make_unique<Request>();
    if (!request->ParseFromString(bytes)) return;
    auto response = std::make_unique<Response>();
    auto* impl = static_cast<Service*>(service_.service());
    grpc::ServerUnaryReactor* reactor =
        (impl->*method)(&call->context, request.get(), response.get());
    call->request = std::move(request);
    call->response = std::move(response);
    if (call->peer->test_status_set()) return;
    CHECK(reactor != nullptr);
    call->held = reactor;
    held_.push_back(std::move(call));
  }

  void Feed(const Frame& frame) {
    const auto number = frame.bytes.empty() ? 0 : static_cast<uint8_t>(frame.bytes[0]);
    const std::string& b = frame.bytes;
    switch (frame.kind) {
      case 0: return Do(b, &Service::RegisterTask);
      case 1: return Do(b, &Service::Heartbeat);
      case 2: return Do(b, &Service::ShutdownTask);
      case 3: return Do(b, &Service::WatchTasks);
      case 4: return Do(b, &Service::InsertKeyValue);
      case 5: return Do(b, &Service::GetKeyValue);
      case 6: return Do(b, &Service::TryGetKeyValue);
      case 7: return Do(b, &Service::IncrementKeyValue);
      case 8: return Do(b, &Service::GetKeyValueDir);
      case 9: return Do(b, &Service::DeleteKeyValue);
      case 10: return Do(b, &Service::Barrier);
      case 11: return Do(b, &Service::CancelBarrier);
      case 12: return Do(b, &Service::GetAliveTasks);
      case 13: return Do(b, &Service::PollForError);
      case 14: return Do(b, &Service::ReportErrorToService);
      case kDrop:
        if (!held_.empty()) held_[number % held_.size()]->held->OnCancel();
        return;
      case kTime:
        return timers_.Advance(absl::Seconds(number));
      case kBegin:
        return service_.Begin(number % 8);
      case kEndEpoch:
        return service_.EndEpoch(absl::DataLossError("a slice is lost"));
    }
  }

 private:
  FakeClock clock_;
  FakeTimers timers_;
  FakeRandom random_{1};
  coordination::CoordinationService service_;
  std::vector<std::unique_ptr<Call>> held_;
};

class CoordinationTarget : public Target {
 public:
  int num_kinds() const override { return kKinds; }
  const google::protobuf::Message* Prototype(uint8_t kind) const override {
    const auto* service = pb::RegisterTaskRequest::descriptor()->file()->service(0);
    if (kind > kLastCall) return nullptr;
    return google::protobuf::MessageFactory::generated_factory()->GetPrototype(
        service->method(kind)->input_type());
  }
  void Run(const std::vector<Frame>& frames) override {
    Caller caller;
    for (const Frame& frame : frames) caller.Feed(frame);
  }
};

}  // namespace

Target& TheTarget() {
  static CoordinationTarget target;
  return target;
}

}  // namespace causeway::fuzz
