// A runtime for tests of the front end: records what it is asked and answers as told.
//
// Arrays are host bytes or errors in a table; programs have one float output like their spec.
// Thread safety: all methods may be called from any thread.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "causeway/core/runtime.h"

namespace causeway::proxy {

class FakeRuntime : public core::Runtime {
 public:
  explicit FakeRuntime(model::ClusterShape shape) : topology_(shape) {}

  // ---- what tests look at and set
  absl::Mutex mu;
  std::vector<uint64_t> opened, closed;
  std::vector<std::string> log;          // one line a call that tests care about
  absl::Status execute_error;            // Execute fails with it
  core::CompileRequest last_compile;
  core::ArraySpec last_spec;             // of MakeArray
  int may_go_on_asked = 0;               // before each read of a session that is open
  bool hold_ready = false;               // AwaitReady waits for ReleaseReady()
  bool far_ahead = false;                // MayGoOn says no until CatchUp()
  bool bytes_missing = false;            // MayExecute says no until BytesCome()

  bool WaitClosed(size_t n) {
    absl::MutexLock lock(&mu);
    auto enough = [this, n] { return closed.size() >= n; };
    return mu.AwaitWithTimeout(absl::Condition(&enough), absl::Seconds(20));
  }
  bool Logged(const std::string& line) {
    absl::MutexLock lock(&mu);
    for (const std::string& l : log) {
      if (l == line) return true;
    }
    return false;
  }
  absl::Status ErrorOf(uint64_t handle) {
    absl::MutexLock lock(&mu);
    auto it = arrays_.find(handle);
    return it == arrays_.end() ? absl::NotFoundError("no such array") : it->second->error;
  }
  // The session reads its next request by now, or waits for CatchUp.
  bool WaitAsked() {
    absl::MutexLock lock(&mu);
    auto asked = [this] { return may_go_on_asked > 0; };
    return mu.AwaitWithTimeout(absl::Condition(&asked), absl::Seconds(20));
  }
  void ReleaseReady() {
    std::vector<std::pair<SessionId, core::StatusCallback>> held;
    {
      absl::MutexLock lock(&mu);
      held.swap(held_);
    }
    for (auto& [session, done] : held) std::move(done)(absl::OkStatus());
  }

  // ---- core::Runtime
  core::ClusterView Describe() override {
    return {.platform = topology_.shape().platform,
            .platform_version = "fake",
            .memory_kinds = {"device", "pinned_host", "unpinned_host"},
            .devices = topology_.devices()};
  }
  SessionId OpenSession(const std::string&) override {
    absl::MutexLock lock(&mu);
    opened.push_back(opened.size() + 1);
    return SessionId(opened.back());
  }
  void CloseSession(SessionId session) override {
    std::vector<core::StatusCallback> held;
    {
      absl::MutexLock lock(&mu);
      closed.push_back(session.value());
      for (auto& [owner, done] : held_) {
        if (owner == session) held.push_back(std::move(done));
      }
      std::erase_if(held_, [session](const auto& wait) { return wait.first == session; });
    }
    for (auto& done : held) std::move(done)(absl::CancelledError("session closed"));
  }
  bool MayGoOn(SessionId, absl::AnyInvocable<void() &&>& resume) override {
    absl::MutexLock lock(&mu);
    ++may_go_on_asked;
    if (!far_ahead) return true;
    resume_ = std::move(resume);
    return false;
  }
  bool MayExecute(SessionId, ExecutableHandle, const std::vector<ArrayHandle>&,
                  absl::AnyInvocable<void() &&> resume) override {
    absl::MutexLock lock(&mu);
    log.push_back("may execute");
    if (!bytes_missing) return true;
    resume_execute_ = std::move(resume);
    return false;
  }
  void BytesCome() {
    absl::AnyInvocable<void() &&> resume;
    {
      absl::MutexLock lock(&mu);
      bytes_missing = false;
      resume = std::move(resume_execute_);
    }
    if (resume) std::move(resume)();
  }
  // The workers have caught up.
  void CatchUp() {
    absl::AnyInvocable<void() &&> resume;
    {
      absl::MutexLock lock(&mu);
      far_ahead = false;
      resume = std::move(resume_);
    }
    if (resume) std::move(resume)();
  }
  uint64_t NewServerHandle(SessionId) override {
    absl::MutexLock lock(&mu);
    return next_handle_++;
  }

  absl::Status MakeArray(SessionId, ArrayHandle result, core::ArraySpec spec,
                         std::vector<core::HostShards> sources) override {
    auto array = std::make_shared<Array>();
    array->shards = spec.sharding->num_shards();
    {
      absl::MutexLock lock(&mu);
      arrays_[result.value()] = array;
      last_spec = spec;
      array->missing = static_cast<int>(sources.size());
    }
    for (core::HostShards& source : sources) {
      source.bytes->OnReady([this, array](absl::StatusOr<absl::Cord> bytes) {
        std::vector<absl::AnyInvocable<void() &&>> waiters;
        {
          absl::MutexLock lock(&mu);
          --array->missing;
          if (bytes.ok()) {
            array->bytes.Append(*bytes);
          } else {
            array->error = bytes.status();
          }
          if (array->missing > 0) return;
          waiters.swap(array->waiters);
        }
        for (auto& waiter : waiters) std::move(waiter)();
      });
    }
    return absl::OkStatus();
  }
  void MakeErrorArrays(SessionId, const std::vector<ArrayHandle>& results,
                       absl::Status error) override {
    absl::MutexLock lock(&mu);
    for (ArrayHandle h : results) {
      arrays_[h.value()] = std::make_shared<Array>();
      arrays_[h.value()]->error = error;
    }
  }
  absl::Status Assemble(SessionId, ArrayHandle result, core::ArraySpec,
                        const std::vector<ArrayHandle>& parts, core::CopySemantics) override {
    return Derive({parts.begin(), parts.end()}, {result});
  }
  absl::Status Disassemble(SessionId, ArrayHandle array, const std::vector<ArrayHandle>& results,
                           core::CopySemantics) override {
    return Derive({array}, results);
  }
  absl::StatusOr<int> NumShards(SessionId, ArrayHandle array) override {
    absl::MutexLock lock(&mu);
    auto it = arrays_.find(array.value());
    if (it == arrays_.end()) return Unknown({array.value()});
    return it->second->shards;
  }
  absl::Status FullyReplicatedShard(SessionId, ArrayHandle array, ArrayHandle result,
                                    core::CopySemantics) override {
    return Derive({array}, {result});
  }
  absl::Status CopyArrays(SessionId, const std::vector<ArrayHandle>& arrays,
                          const std::vector<DeviceId>&, const std::optional<std::string>&,
                          core::CopySemantics, const std::vector<ArrayHandle>& results) override {
    return Derive(arrays, results);
  }
  absl::Status RemapArrays(SessionId, const std::vector<ArrayHandle>& arrays,
                           const std::vector<core::ArraySpec>&,
                           const std::vector<core::RemapMapping>& mappings, core::CopySemantics,
                           const std::vector<ArrayHandle>& results) override {
    {
      absl::MutexLock lock(&mu);
      for (const auto& m : mappings) {
        log.push_back(absl::StrCat("remap ", m.in_array, "->", m.out_array, " runs ",
                                   m.from.size()));
      }
    }
    return Derive(arrays, results);
  }
  absl::Status ReshardArrays(SessionId, const std::vector<ArrayHandle>& arrays,
                             const std::vector<core::ArraySpec>&, core::CopySemantics,
                             const std::vector<ArrayHandle>& results) override {
    return Derive(arrays, results);
  }
  absl::Status BitcastArrays(SessionId, const std::vector<ArrayHandle>& arrays,
                             const std::vector<core::ArraySpec>&, core::CopySemantics,
                             const std::vector<ArrayHandle>& results) override {
    return Derive(arrays, results);
  }
  void CopyToHost(SessionId, ArrayHandle array, std::optional<std::vector<int64_t>>,
                  absl::AnyInvocable<void(absl::StatusOr<absl::Cord>) &&> done) override {
    std::shared_ptr<Array> found = Find(array);
    if (found == nullptr) return std::move(done)(Unknown({array.value()}));
    WhenDone(found, [this, found, done = std::move(done)]() mutable {
      absl::StatusOr<absl::Cord> result;
      {
        absl::MutexLock lock(&mu);
        result = found->error.ok() ? absl::StatusOr<absl::Cord>(found->bytes) : found->error;
      }
      std::move(done)(std::move(result));
    });
  }
  void AwaitReady(SessionId session, const std::vector<ArrayHandle>& arrays,
                  core::StatusCallback done) override {
    {
      absl::MutexLock lock(&mu);
      if (hold_ready) {
        held_.emplace_back(session, std::move(done));
        return;
      }
    }
    std::shared_ptr<Array> first = Find(arrays.front());
    if (first == nullptr) return std::move(done)(Unknown({arrays.front().value()}));
    WhenDone(first, [this, first, done = std::move(done)]() mutable {
      absl::Status error;
      {
        absl::MutexLock lock(&mu);
        error = first->error;
      }
      std::move(done)(error);
    });
  }
  absl::Status Delete(SessionId, const std::vector<ArrayHandle>& arrays) override {
    absl::MutexLock lock(&mu);
    for (ArrayHandle h : arrays) deleted_.insert(h.value());
    return absl::OkStatus();
  }
  absl::StatusOr<bool> IsDeleted(SessionId, ArrayHandle array) override {
    absl::MutexLock lock(&mu);
    return deleted_.count(array.value()) > 0;
  }
  absl::Status Destruct(SessionId, const std::vector<ArrayHandle>& arrays) override {
    absl::MutexLock lock(&mu);
    std::vector<uint64_t> unknown;
    for (ArrayHandle h : arrays) {
      if (arrays_.erase(h.value()) == 0) unknown.push_back(h.value());
    }
    if (unknown.empty()) return absl::OkStatus();
    return absl::NotFoundError(absl::StrCat("unknown arrays: ", absl::StrJoin(unknown, ", ")));
  }

  void Compile(SessionId, core::CompileRequest request,
               absl::AnyInvocable<void(
                   absl::StatusOr<std::shared_ptr<const core::ExecutableView>>) &&>
                   done) override {
    if (request.program == "bad") {
      return std::move(done)(absl::InvalidArgumentError("the program is bad"));
    }
    auto info = std::make_shared<core::ProgramInfo>();
    info->name = "jit_f";
    info->output_dtypes = {model::DType::kF32};
    info->output_shapes = {{4, 2}};
    info->parameter_layouts = absl::UnimplementedError("no layouts here");
    info->output_layouts = std::vector<std::vector<int64_t>>{{1, 0}};
    info->donated_inputs = {1};
    info->memory_stats = std::map<std::string, int64_t>{{"temp_size_in_bytes", 7}, {"else", 1}};
    auto view = std::make_shared<core::ExecutableView>();
    view->info = info;
    view->devices = request.devices;
    model::OpSharding op;
    op.type = model::OpSharding::Type::kOther;
    op.tile_dims = {static_cast<int64_t>(request.devices.size()), 1};
    core::ArraySpec output{.dtype = model::DType::kF32, .shape = {4, 2}};
    output.sharding = model::Sharding::Hlo(request.devices, "", op).value();
    view->outputs = {output};
    {
      absl::MutexLock lock(&mu);
      view->handle = ExecutableHandle(next_handle_++);
      executables_[view->handle.value()] = view;
      last_compile = std::move(request);
    }
    std::move(done)(std::shared_ptr<const core::ExecutableView>(view));
  }
  absl::StatusOr<std::shared_ptr<const core::ExecutableView>> GetExecutable(
      SessionId, ExecutableHandle executable) override {
    absl::MutexLock lock(&mu);
    auto it = executables_.find(executable.value());
    if (it == executables_.end()) return absl::InvalidArgumentError("unknown executable");
    return it->second;
  }
  absl::StatusOr<core::ExecuteResult> Execute(SessionId session,
                                              const core::ExecuteRequest& request) override {
    absl::Status error;
    {
      absl::MutexLock lock(&mu);
      error = execute_error;
      log.push_back(absl::StrCat("execute args ", request.args.size(), " keep ",
                                 absl::StrJoin(request.non_donatable, ",")));
    }
    if (!error.ok()) {
      MakeErrorArrays(session, request.results, error);
      return error;
    }
    core::ExecuteResult result{.results = request.results, .status = request.status};
    if (result.results.empty()) result.results = {ArrayHandle(NewServerHandle(session))};
    if (request.want_status && result.status.value() == 0) {
      result.status = StatusHandle(NewServerHandle(session));
    }
    absl::MutexLock lock(&mu);
    for (ArrayHandle h : result.results) arrays_[h.value()] = std::make_shared<Array>();
    if (request.want_status) statuses_.insert(result.status.value());
    return result;
  }
  void AwaitExecution(
      SessionId, StatusHandle status,
      absl::AnyInvocable<void(absl::StatusOr<core::DeviceTimes>) &&> done) override {
    bool known;
    {
      absl::MutexLock lock(&mu);
      known = statuses_.erase(status.value()) > 0;
    }
    if (!known) return std::move(done)(absl::NotFoundError("unknown status"));
    std::move(done)(core::DeviceTimes{{"gpu", 1.5}});
  }
  absl::Status DestructExecutable(SessionId, ExecutableHandle executable) override {
    absl::MutexLock lock(&mu);
    if (executables_.erase(executable.value()) > 0) return absl::OkStatus();
    return absl::NotFoundError("unknown executable");
  }
  void GetProgramText(SessionId, ExecutableHandle,
                      absl::AnyInvocable<void(absl::StatusOr<std::string>) &&> done) override {
    std::move(done)(std::string("HloModule f"));
  }
  void GetCostAnalysis(
      SessionId, ExecutableHandle,
      absl::AnyInvocable<void(absl::StatusOr<std::map<std::string, double>>) &&> done) override {
    std::move(done)(std::map<std::string, double>{{"flops", 8}});
  }

 private:
  struct Array {
    int shards = 1;
    int missing = 0;
    absl::Cord bytes;
    absl::Status error;
    std::vector<absl::AnyInvocable<void() &&>> waiters;
  };

  static absl::Status Unknown(const std::vector<uint64_t>& handles) {
    return absl::InvalidArgumentError(
        absl::StrCat("unknown array ", absl::StrJoin(handles, ", ")));
  }
  std::shared_ptr<Array> Find(ArrayHandle handle) {
    absl::MutexLock lock(&mu);
    auto it = arrays_.find(handle.value());
    return it == arrays_.end() ? nullptr : it->second;
  }
  void WhenDone(const std::shared_ptr<Array>& array, absl::AnyInvocable<void() &&> then) {
    {
      absl::MutexLock lock(&mu);
      if (array->missing > 0) {
        array->waiters.push_back(std::move(then));
        return;
      }
    }
    std::move(then)();
  }
  absl::Status Derive(const std::vector<ArrayHandle>& from, const std::vector<ArrayHandle>& to) {
    absl::MutexLock lock(&mu);
    std::shared_ptr<Array> source;
    for (ArrayHandle h : from) {
      auto it = arrays_.find(h.value());
      if (it == arrays_.end()) {
        const absl::Status error = Unknown({h.value()});
        for (ArrayHandle r : to) {
          arrays_[r.value()] = std::make_shared<Array>();
          arrays_[r.value()]->error = error;
        }
        return error;
      }
      source = it->second;
    }
    for (ArrayHandle r : to) arrays_[r.value()] = source;
    return absl::OkStatus();
  }

  const model::Topology topology_;
  uint64_t next_handle_ = uint64_t{1} << 48;
  std::map<uint64_t, std::shared_ptr<Array>> arrays_;
  std::set<uint64_t> deleted_, statuses_;
  std::map<uint64_t, std::shared_ptr<core::ExecutableView>> executables_;
  std::vector<std::pair<SessionId, core::StatusCallback>> held_;
  absl::AnyInvocable<void() &&> resume_, resume_execute_;
};

}  // namespace causeway::proxy
