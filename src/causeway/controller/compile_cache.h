// The controller's door to compiled programs of earlier heads, and the thread that works behind it.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "causeway/controller/program_files.h"
#include "causeway/core/status_source.h"

namespace causeway::controller {

// Thread safety: all methods are thread-safe and never wait for a disk.
class CompileCache {
 public:
  using Found = absl::AnyInvocable<void(std::optional<std::string> contents) &&>;
  virtual ~CompileCache() = default;
  // Calls `done` exactly once, from any thread, possibly before this returns; nullopt: not there.
  virtual void Find(std::string key, Found done) = 0;
  virtual void Store(std::string key, std::string contents) = 0;
  virtual core::CompileCacheStatus Status() = 0;
};

// Files, used by one thread in the order of the calls.
class DiskCompileCache final : public CompileCache {
 public:
  explicit DiskCompileCache(ProgramFiles files);
  ~DiskCompileCache() override;

  void Find(std::string key, Found done) override;
  void Store(std::string key, std::string contents) override;
  core::CompileCacheStatus Status() override;
  // Finishes what was asked so far; whoever asks later finds nothing.
  void Stop();

 private:
  struct Job {
    std::string key;
    std::optional<std::string> store;
    Found found;
  };
  void Put(Job job);
  void Loop();

  absl::Mutex mu_;
  std::deque<Job> jobs_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  core::CompileCacheStatus status_ ABSL_GUARDED_BY(mu_);
  ProgramFiles files_;  // the thread's
  std::thread thread_;
};

}  // namespace causeway::controller
