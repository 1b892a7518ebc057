// The disk of compiled programs: the real files' format over a disk in memory that can fail.
#pragma once

#include <optional>
#include <string>

#include "causeway/base/file_system.h"
#include "causeway/base/random.h"
#include "causeway/controller/compile_cache.h"
#include "causeway/controller/program_files.h"
#include "causeway/sim/channel.h"
#include "causeway/sim/scheduler.h"

namespace causeway::sim {

// What DiskCompileCache does with a thread: one job after the other, each some time later.
class Disk final : public controller::CompileCache {
 public:
  Disk(Scheduler& scheduler, uint64_t seed);

  // controller::CompileCache
  void Find(std::string key, Found done) override;
  void Store(std::string key, std::string contents) override;
  core::CompileCacheStatus Status() override { return files_.status(); }

  enum class Trouble { kFull, kUnwritable, kUnreadable, kDamaged };
  // Until Mend(). kDamaged spoils what is there at both ends of that time.
  void Fail(Trouble trouble);
  void Mend();
  // Whether something ever went wrong.
  bool failed() const { return failed_; }

 private:
  void Damage();

  FakeRandom random_;
  FakeFileSystem disk_;
  controller::ProgramFiles files_;
  Channel jobs_;
  bool failed_ = false, damaging_ = false;
};

}  // namespace causeway::sim
