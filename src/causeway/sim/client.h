// A simulated client: a seeded program of uploads, launches, copies, reads and departures, checked
// against its model.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "causeway/core/runtime.h"
#include "causeway/sim/model.h"
#include "causeway/sim/world.h"

namespace causeway::sim {

class Client {
 public:
  Client(World& world, int index);
  // Begins; operations come one after the other in virtual time.
  void Start();
  bool finished() const { return operations_left_ == 0; }
  // Reads everything it holds, then checks that the cluster works again. When all is answered the
  // session is closed and `closed()` is true.
  void Finish();
  bool closed() const { return closed_; }
  // What has been asked and not answered, for a report.
  std::string Outstanding() const;

 private:
  struct Executable {
    ExecutableHandle handle;
    bool asked = false;
  };
  using Done = std::function<void()>;

  void Next();
  void Operate();
  bool ShouldRun(const char* what, const Lineage& lineage, const absl::Status& status);
  void OpenSession();
  int Ask(std::string what);
  void Answered(int question);

  ModelArrayRef Pick(bool alive_only = true);
  ModelArrayRef Add(ModelArray array);
  void Forget(const ModelArrayRef& array);
  const std::vector<DeviceId>& AnyList();
  std::vector<int> WorkersOf(const std::vector<DeviceId>& devices) const;
  Lineage NewLineage(const std::vector<DeviceId>& devices) const;
  core::ArraySpec SpecOf(const std::vector<DeviceId>& devices, bool tiled) const;

  void Upload();
  ModelArrayRef UploadTo(const std::vector<DeviceId>& devices, bool tiled, int variety);
  void Launch();
  std::vector<ModelArrayRef> Run(const ModelProgram& program,
                                 const std::vector<ModelArrayRef>& inputs, bool want_status);
  const Executable* Compiled(const ModelProgram& program, const std::vector<DeviceId>& devices,
                             Done then = nullptr);
  void Copy();
  void Reshard();
  void Disassemble();
  void Read(const ModelArrayRef& array, Done then = nullptr);
  void AwaitReady();
  void Delete();
  void LetGo();
  void Leave();
  void Prove();
  void CloseWhenAnswered();

  World& world_;
  const int index_;
  FakeRandom random_;
  SessionId session_;
  uint64_t generation_ = 0;  // of the session: answers to an older one mean nothing
  uint64_t next_handle_ = 1;
  int operations_left_;
  bool finishing_ = false, proved_ = false, closed_ = false;
  std::vector<ModelArrayRef> arrays_;
  std::map<std::pair<std::string, std::vector<DeviceId>>, Executable> executables_;
  std::map<int, std::string> questions_;
  int next_question_ = 1;
};

}  // namespace causeway::sim
