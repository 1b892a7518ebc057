// The reactors of Attach and Bulk, and the table that joins them.
#include "causeway/controller/control_service.h"

#include <unistd.h>

#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "causeway/base/log.h"
#include "causeway/base/process_exit.h"
#include "causeway/controller/worker_attachment.h"
#include "causeway/liveness/death_watch.h"
#include "control.grpc.pb.h"

namespace causeway::controller {
namespace {

using Lane = WorkerAttachment::Lane;

grpc::Status ToGrpc(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

std::string ThisHost() {
  char name[256] = "";
  (void)::gethostname(name, sizeof(name) - 1);
  return name;
}

core::WorkerHello FromWire(const control::Hello& hello) {
  core::WorkerHello h;
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
  return h;
}

// A call that ends before it began.
class Refusal : public WorkerReactor {
 public:
  explicit Refusal(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace

class ControlService::Impl : public control::WorkerControl::CallbackService {
 public:
  Impl(core::WorkerSink& sink, Timers& timers, DataOptions data, liveness::DeathWatch* deaths)
      : sink_(sink),
        timers_(timers),
        data_{.folder = data.folder, .checksums = data.checksums},
        deaths_(deaths) {
    if (data.folder != nullptr) data_.memory = SharedFolder::Identity();
  }

  WorkerReactor* Attach(grpc::CallbackServerContext* context) override;
  WorkerReactor* Bulk(grpc::CallbackServerContext* context) override;

  void Shutdown(const std::string& reason) {
    std::vector<std::shared_ptr<WorkerAttachment>> all;
    {
      absl::MutexLock lock(&mu_);
      shut_down_ = true;
      for (const auto& [token, attachment] : by_token_) all.push_back(attachment);
    }
    for (const auto& attachment : all) attachment->Close(reason);
  }

  int num_attached() const {
    absl::MutexLock lock(&mu_);
    return static_cast<int>(by_token_.size());
  }

 private:
  class AttachReactor;
  class BulkReactor;

  bool shut_down() const {
    absl::MutexLock lock(&mu_);
    return shut_down_;
  }

  core::WorkerSink& sink_;
  Timers& timers_;
  WorkerAttachment::Options data_;
  liveness::DeathWatch* const deaths_;  // may be null
  mutable absl::Mutex mu_;
  bool shut_down_ ABSL_GUARDED_BY(mu_) = false;
  absl::flat_hash_map<std::string, std::shared_ptr<WorkerAttachment>> by_token_
      ABSL_GUARDED_BY(mu_);
};

// Reads run one at a time, so the members need no lock.
class ControlService::Impl::AttachReactor : public WorkerReactor {
 public:
  AttachReactor(Impl* impl, grpc::CallbackServerContext* context)
      : impl_(impl),
        context_(context),
        attachment_(std::make_shared<WorkerAttachment>(impl->timers_, impl->data_, this,
                                                       context)) {
    StartRead(&message_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      Detach();
      attachment_->End(Lane::kCommands, grpc::Status::OK);
      return;
    }
    for (const control::Event& event : message_.events()) {
      if (attached_) {
        impl_->sink_.OnEvent(worker_, admission_.incarnation, event.SerializeAsString());
        continue;
      }
      const absl::Status admitted = Admit(event);
      if (!admitted.ok()) {
        LOG(WARNING) << "refused a worker at " << context_->peer() << ": " << admitted.message();
        attachment_->End(Lane::kCommands, ToGrpc(admitted));
        return;  // nothing is read any more
      }
    }
    StartRead(&message_);
  }

  void OnWriteDone(bool ok) override { attachment_->Wrote(Lane::kCommands, ok); }

  void OnDone() override {
    Detach();
    attachment_->Gone(Lane::kCommands);
    delete this;
  }

 private:
  absl::Status Admit(const control::Event& event) {
    if (!event.has_hello()) {
      return absl::InvalidArgumentError(
          "the first event of an attaching worker must be Hello; is it of another version?");
    }
    worker_ = WorkerId(event.hello().worker());
    if (event.hello().host() == ThisHost()) {
      pid_ = event.hello().pid();
      process_start_ = ProcessStart(pid_);
    }
    attachment_->SetWorkerMemory(event.hello().memory());
    absl::StatusOr<core::WorkerAdmission> admission =
        impl_->sink_.OnAttached(FromWire(event.hello()), attachment_);
    if (!admission.ok()) return admission.status();
    admission_ = *std::move(admission);
    attached_ = true;
    if (impl_->deaths_ != nullptr) {
      impl_->deaths_->Expect(
          admission_.token,
          [sink = &impl_->sink_, attachment = attachment_, worker = worker_,
           incarnation = admission_.incarnation, pid = pid_, start = process_start_] {
            std::string why = HowProcessEnded(pid, start);
            if (why.empty()) why = "its process ended";
            sink->OnDetached(worker, incarnation, why);
            attachment->Close(why);
          });
    }
    bool late = false;
    {
      absl::MutexLock lock(&impl_->mu_);
      late = impl_->shut_down_;
      impl_->by_token_[admission_.token] = attachment_;
    }
    attachment_->Admitted();
    if (late) attachment_->Close("the head is shutting down");
    return absl::OkStatus();
  }

  void Detach() {
    if (!attached_) return;
    attached_ = false;
    if (impl_->deaths_ != nullptr) impl_->deaths_->Forget(admission_.token);
    {
      absl::MutexLock lock(&impl_->mu_);
      impl_->by_token_.erase(admission_.token);
    }
    std::string why = attachment_->close_reason();
    if (why.empty()) why = HowProcessEnded(pid_, process_start_);
    if (why.empty()) {
      why = context_->IsCancelled() ? "its connection was lost" : "it closed its control stream";
    }
    impl_->sink_.OnDetached(worker_, admission_.incarnation, why);
  }

  Impl* const impl_;
  grpc::CallbackServerContext* const context_;
  const std::shared_ptr<WorkerAttachment> attachment_;
  control::FromWorker message_;
  WorkerId worker_;
  core::WorkerAdmission admission_;
  bool attached_ = false;
  // Of a worker on this machine: its end can be asked of the kernel.
  int pid_ = 0;
  uint64_t process_start_ = 0;
};

class ControlService::Impl::BulkReactor : public WorkerReactor {
 public:
  BulkReactor(Impl* impl, grpc::CallbackServerContext* context) : impl_(impl), context_(context) {
    StartRead(&message_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      if (attachment_ == nullptr) {
        Finish(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "a bulk stream begins with Hello"));
      } else {
        attachment_->End(Lane::kBulk, grpc::Status::OK);
      }
      return;
    }
    if (attachment_ == nullptr) {
      const absl::Status joined = Join();
      if (!joined.ok()) {
        LOG(WARNING) << "refused a bulk stream from " << context_->peer() << ": "
                     << joined.message();
        Finish(ToGrpc(joined));
        return;
      }
    }
    StartRead(&message_);  // only to hear of the end
  }

  void OnWriteDone(bool ok) override { attachment_->Wrote(Lane::kBulk, ok); }

  void OnDone() override {
    if (attachment_ != nullptr) attachment_->Gone(Lane::kBulk);
    delete this;
  }

 private:
  absl::Status Join() {
    if (message_.events_size() == 0 || !message_.events(0).has_hello()) {
      return absl::InvalidArgumentError("a bulk stream begins with Hello");
    }
    std::shared_ptr<WorkerAttachment> found;
    {
      absl::MutexLock lock(&impl_->mu_);
      auto it = impl_->by_token_.find(message_.events(0).hello().token());
      if (it != impl_->by_token_.end()) found = it->second;
    }
    if (found == nullptr) {
      return absl::FailedPreconditionError(
          "no attached worker has this token; attach first, then send the token of the Welcome");
    }
    // Set before the attachment may write through this reactor.
    attachment_ = found;
    if (found->BulkCame(this, context_)) return absl::OkStatus();
    attachment_ = nullptr;
    return absl::FailedPreconditionError("the worker has a bulk stream already, or is going");
  }

  Impl* const impl_;
  grpc::CallbackServerContext* const context_;
  std::shared_ptr<WorkerAttachment> attachment_;
  control::FromWorker message_;
};

WorkerReactor* ControlService::Impl::Attach(grpc::CallbackServerContext* context) {
  if (shut_down()) {
    return new Refusal(
        grpc::Status(grpc::StatusCode::UNAVAILABLE, "the head is shutting down; try again later"));
  }
  return new AttachReactor(this, context);
}

WorkerReactor* ControlService::Impl::Bulk(grpc::CallbackServerContext* context) {
  return new BulkReactor(this, context);
}

ControlService::ControlService(core::WorkerSink& sink, Timers& timers, DataOptions data,
                               liveness::DeathWatch* deaths)
    : impl_(std::make_unique<Impl>(sink, timers, data, deaths)) {}

ControlService::~ControlService() = default;

grpc::Service* ControlService::service() { return impl_.get(); }

void ControlService::Shutdown(const std::string& reason) { impl_->Shutdown(reason); }

int ControlService::num_attached() const { return impl_->num_attached(); }

}  // namespace causeway::controller
