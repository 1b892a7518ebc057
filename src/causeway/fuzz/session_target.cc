// Fuzz target: a client's session over the real controller, whose workers are scripted.
//
// Frames: 0 a request; 1 bytes of a host buffer; 2 look-up or delete of one; 3 something happens
// around the session; 4 and 5 an event of worker 0 or 1; 6 how the next compile is answered.
// Checked besides crashes: every request is answered exactly once, by its own kind or an error.
#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/string_view.h"
#include "causeway/base/check.h"
#include "causeway/base/clock.h"
#include "causeway/base/random.h"
#include "causeway/base/timers.h"
#include "causeway/controller/controller.h"
#include "causeway/fuzz/scripted_workers.h"
#include "causeway/fuzz/target.h"
#include "causeway/proxy/context.h"
#include "causeway/proxy/reply_queue.h"
#include "causeway/proxy/session.h"
#include "control.pb.h"
#include "ifrt_session.pb.h"

namespace causeway::fuzz {
namespace {

constexpr int kWorkers = 2;
constexpr int kDevices = 4;
constexpr int64_t kBufferBytesMax = 1 << 20;

enum Kind : uint8_t { kRequest, kStore, kBuffer, kAround, kEvent0, kEvent1, kCompileResult, kKinds };

class Membership : public controller::Membership {
 public:
  absl::StatusOr<int> NewNode(WorkerId) override { return ++next_; }
  int num_nodes() const override { return 1 << 20; }
  void EpochChanged(EpochId, const absl::Status&) override {}

 private:
  int next_ = 0;
};

// Numbers from the bytes of a frame; 0 when they are used up.
class Reader {
 public:
  explicit Reader(absl::string_view bytes) : bytes_(bytes) {}
  uint64_t Take(size_t n) {
    uint64_t value = 0;
    n = std::min(n, bytes_.size());
    std::memcpy(&value, bytes_.data(), n);
    bytes_.remove_prefix(n);
    return value;
  }
  absl::string_view rest() const { return bytes_; }

 private:
  absl::string_view bytes_;
};

class Replies : public proxy::ReplyStream {
 public:
  // What each request was, by its number; 0 once it is answered.
  std::vector<int> due;
  bool writing = false;

  void Read() override {}  // requests come from the input
  void Write(const ifrt::IfrtResponse& message, bool) override {
    CHECK(!writing);
    writing = true;
    const uint64_t op = message.response_metadata().op_id();
    CHECK(op < due.size() && due[op] >= 0) << "a second answer, or one to nobody: " << op;
    const int kind = std::exchange(due[op], -1);
    if (message.response_metadata().status().code() == 0) {
      CHECK_EQ(static_cast<int>(message.response_case()), kind);
    } else {
      CHECK_EQ(static_cast<int>(message.response_case()), 0);
    }
  }
  void ReleaseSoon() override {}  // what is held goes with the next Drain
  void Finish(const grpc::Status&) override {}
};

class Cluster {
 public:
  Cluster()
      : timers_(clock_),
        controller_(Options(), membership_, clock_, timers_, random_),
        workers_(controller_, kWorkers, kDevices),
        context_(std::make_shared<proxy::Context>(controller_, ProxyOptions())),
        queue_(std::make_shared<proxy::ReplyQueue>(&replies_, 16)),
        session_(std::make_shared<proxy::Session>(context_, proxy::kMaxVersion, "fuzz", queue_)) {
    for (int w = 0; w < kWorkers; ++w) workers_.Attach(w);
    workers_.StepAll();
  }

  void Feed(const Frame& frame) {
    switch (frame.kind) {
      case kRequest:
        Request(frame.bytes);
        break;
      case kStore:
        Store(frame.bytes);
        break;
      case kBuffer: {
        Reader reader(frame.bytes);
        const bool remove = reader.Take(1) & 1;
        const uint64_t handle = reader.Take(8);
        if (remove) {
          (void)session_->buffers->Delete(handle);
        } else {
          (void)session_->buffers->Lookup(handle);
        }
        break;
      }
      case kAround:
        Around(frame.bytes);
        break;
      case kEvent0:
      case kEvent1:
        workers_.Inject(frame.kind - kEvent0, frame.bytes);
        break;
      case kCompileResult: {
        control::CompileResult result;
        if (result.ParseFromString(frame.bytes)) workers_.NextCompileIs(std::move(result));
        break;
      }
      default:
        break;
    }
    if (!slow_workers_) workers_.StepAll();
    if (!slow_reader_) Drain();
  }

  // Ends everything and checks that nothing was left unanswered.
  void End() {
    workers_.StepAll();
    for (int w = 0; w < kWorkers; ++w) workers_.Lose(w);
    timers_.Advance(absl::Seconds(2));
    Drain();
    upload_ = nullptr;
    session_->Close("the input ends");
    Drain();
    for (size_t op = 0; op < replies_.due.size(); ++op) {
      CHECK(replies_.due[op] < 0) << "request " << op << " of kind " << replies_.due[op]
                                  << " was never answered";
    }
    CHECK_EQ(session_->buffers->num_bytes(), 0);
    CHECK_EQ(session_->buffers->in_flight().used(), 0);
    CHECK_EQ(session_->open_calls.used(), 0);
    CHECK_EQ(controller_.GetStatus().gauges["buffers"], 0);
  }

 private:
  static controller::ControllerOptions Options() {
    controller::ControllerOptions options;
    options.shape.slices = kWorkers;
    options.shape.devices_per_host = kDevices;
    options.max_programs = 8;
    return options;
  }
  static proxy::Options ProxyOptions() {
    proxy::Options options;
    options.max_bytes_per_session = 4 * kBufferBytesMax;
    options.max_buffers_per_session = 64;
    return options;
  }

  void Request(const std::string& bytes) {
    ifrt::IfrtRequest request;
    if (!request.ParseFromString(bytes)) return;
    if (!queue_->MayRead()) Drain();
    request.mutable_request_metadata()->set_op_id(replies_.due.size());
    replies_.due.push_back(static_cast<int>(request.request_case()));
    session_->Handle(request);
  }

  // handle (8), flags (1), bytes. Flags: 1 announces one byte more, 2 leaves it open for more,
  // 4 continues the open one, 8 announces a size of its own.
  void Store(const std::string& bytes) {
    Reader reader(bytes);
    const uint64_t handle = reader.Take(8);
    const uint64_t flags = reader.Take(1);
    int64_t size = static_cast<int64_t>(reader.rest().size()) + ((flags & 1) != 0 ? 1 : 0);
    if ((flags & 8) != 0) size = static_cast<int64_t>(reader.Take(8));
    if (size > kBufferBytesMax && size <= 4 * kBufferBytesMax) size = kBufferBytesMax;
    if ((flags & 4) == 0 || upload_ == nullptr) {
      upload_ = nullptr;
      auto upload = session_->buffers->BeginUpload(handle, size);
      if (!upload.ok()) return;
      upload_ = *std::move(upload);
    }
    if (!upload_->Append(reader.rest()).ok()) {
      upload_ = nullptr;
      return;
    }
    if ((flags & 2) != 0) return;
    (void)upload_->Commit();
    upload_ = nullptr;
  }

  void Around(const std::string& bytes) {
    Reader reader(bytes);
    const uint64_t what = reader.Take(1);
    const uint64_t number = reader.Take(1);
    const int worker = static_cast<int>(number % kWorkers);
    switch (what % 8) {
      case 0:
        workers_.Step(worker);
        break;
      case 1:
        workers_.Lose(worker);
        break;
      case 2:
        workers_.Attach(worker);
        break;
      case 3:
        timers_.Advance(absl::Milliseconds(100) * static_cast<int>(number));
        break;
      case 4:
        workers_.FailNextLaunch(worker, static_cast<int>(number / kWorkers % 17), what >= 128);
        break;
      case 5:
        slow_workers_ = number & 1;
        break;
      case 6:
        slow_reader_ = number & 1;
        break;
      case 7:
        upload_ = nullptr;
        break;
    }
  }

  void Drain() {
    do {
      while (std::exchange(replies_.writing, false)) (void)queue_->OnWriteDone(true);
      queue_->ReleaseHeld();
    } while (replies_.writing);
  }

  FakeClock clock_;
  FakeTimers timers_;
  FakeRandom random_{1};
  Membership membership_;
  controller::Controller controller_;
  ScriptedWorkers workers_;
  std::shared_ptr<proxy::Context> context_;
  Replies replies_;
  std::shared_ptr<proxy::ReplyQueue> queue_;
  std::shared_ptr<proxy::Session> session_;
  std::unique_ptr<proxy::HostBufferStore::Upload> upload_;
  bool slow_workers_ = false;
  bool slow_reader_ = false;
};

class SessionTarget : public Target {
 public:
  int num_kinds() const override { return kKinds; }
  const google::protobuf::Message* Prototype(uint8_t kind) const override {
    switch (kind) {
      case kRequest:
        return &ifrt::IfrtRequest::default_instance();
      case kEvent0:
      case kEvent1:
        return &control::Event::default_instance();
      case kCompileResult:
        return &control::CompileResult::default_instance();
      default:
        return nullptr;
    }
  }
  void Run(const std::vector<Frame>& frames) override {
    Cluster cluster;
    // Every session begins so; an input may send it once more.
    ifrt::IfrtRequest init;
    init.mutable_init_request();
    cluster.Feed({kRequest, init.SerializeAsString()});
    for (const Frame& frame : frames) cluster.Feed(frame);
    cluster.End();
  }
};

}  // namespace

Target& TheTarget() {
  static SessionTarget target;
  return target;
}

}  // namespace causeway::fuzz
