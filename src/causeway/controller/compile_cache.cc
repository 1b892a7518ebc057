// The queue between the controller, which never waits, and the disk.
#include "causeway/controller/compile_cache.h"

#include <utility>

namespace causeway::controller {

DiskCompileCache::DiskCompileCache(ProgramFiles files)
    : status_(files.status()), files_(std::move(files)), thread_([this] { Loop(); }) {}

DiskCompileCache::~DiskCompileCache() { Stop(); }

void DiskCompileCache::Stop() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void DiskCompileCache::Put(Job job) {
  {
    absl::MutexLock lock(&mu_);
    if (!stopping_) {
      jobs_.push_back(std::move(job));
      return;
    }
  }
  if (job.found) std::move(job.found)(std::nullopt);
}

void DiskCompileCache::Find(std::string key, Found done) {
  Put({std::move(key), std::nullopt, std::move(done)});
}

void DiskCompileCache::Store(std::string key, std::string contents) {
  Put({std::move(key), std::move(contents), nullptr});
}

core::CompileCacheStatus DiskCompileCache::Status() {
  absl::MutexLock lock(&mu_);
  return status_;
}

void DiskCompileCache::Loop() {
  while (true) {
    Job job;
    {
      absl::MutexLock lock(&mu_);
      auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return stopping_ || !jobs_.empty();
      };
      mu_.Await(absl::Condition(&ready));
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    const std::string digest = ProgramFiles::Digest(job.key);
    std::optional<std::string> contents;
    if (job.store.has_value()) {
      files_.Store(digest, *job.store);
    } else {
      contents = files_.Find(digest);
    }
    {
      absl::MutexLock lock(&mu_);
      status_ = files_.status();
    }
    if (job.found) std::move(job.found)(std::move(contents));
  }
}

}  // namespace causeway::controller
