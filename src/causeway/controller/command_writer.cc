// Rounds of writing.
#include "causeway/controller/command_writer.h"

#include <pthread.h>

#include <iterator>
#include <utility>

namespace causeway::controller {

CommandWriter::CommandWriter() : thread_([this] { Loop(); }) {
  ::pthread_setname_np(thread_.native_handle(), "writer");
}

CommandWriter::~CommandWriter() { Stop(); }

void CommandWriter::Write(Links links) {
  absl::MutexLock lock(&mu_);
  if (stopped_) return;
  if (waiting_.empty()) {
    waiting_ = std::move(links);
  } else {
    waiting_.insert(waiting_.end(), std::make_move_iterator(links.begin()),
                    std::make_move_iterator(links.end()));
  }
}

void CommandWriter::Stop() {
  {
    absl::MutexLock lock(&mu_);
    stopped_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void CommandWriter::Loop() {
  auto due = [this] {
    mu_.AssertHeld();
    return stopped_ || !waiting_.empty();
  };
  while (true) {
    Links links;
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(&due));
      links.swap(waiting_);
      if (stopped_) return;  // the lock is released before the links are dropped
    }
    for (const auto& link : links) link->WriteQueued();
  }
}

}  // namespace causeway::controller
