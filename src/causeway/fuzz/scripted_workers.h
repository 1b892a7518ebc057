// Workers for a real controller that compute nothing: every command gets a plausible answer.
//
// Answers come when Step() says so, one command at a time, so an input decides what overtakes what.
// Thread safety: none; one thread drives the controller and the workers.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "causeway/base/strong_id.h"
#include "causeway/controller/controller.h"
#include "control.pb.h"

namespace causeway::fuzz {

class ScriptedWorkers {
 public:
  ScriptedWorkers(controller::Controller& controller, int workers, int devices_per_worker);
  ~ScriptedWorkers();

  // Joins, unless it is there already. The controller may refuse.
  void Attach(int worker);
  void Lose(int worker);
  // Answers the oldest command of `worker`. False: there was none, or it is gone.
  bool Step(int worker);
  // Answers until nothing is left to answer.
  void StepAll();
  // An event of the worker's own making, as it would come from the network.
  void Inject(int worker, const std::string& event);
  // The next launch of the worker fails with this code.
  void FailNextLaunch(int worker, int code, bool peer_failure);
  // How the next compile is answered, instead of with one output f32[4].
  void NextCompileIs(control::CompileResult result) { compile_ = std::move(result); }

 private:
  class Link;
  struct Worker {
    std::shared_ptr<Link> link;
    Incarnation incarnation;
    int failing_code = 0;
    bool peer_failure = false;
  };
  void Answer(Worker& worker, WorkerId id, const control::Command& command);
  void Send(WorkerId id, const Worker& worker, const control::Event& event);
  void Reply(WorkerId id, const Worker& worker, uint64_t request);

  controller::Controller& controller_;
  const int devices_;
  std::vector<Worker> workers_;
  control::CompileResult compile_;
  std::map<uint64_t, int64_t> output_bytes_;   // by program
  std::map<uint64_t, uint64_t> programs_;      // of bindings
  std::map<std::pair<uint64_t, int>, int64_t> shard_bytes_;  // by buffer and device
};

}  // namespace causeway::fuzz
