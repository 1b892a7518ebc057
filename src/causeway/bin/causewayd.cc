// The head's program: reads flags, serves until a signal, ends in an orderly way.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "causeway/base/limits.h"
#include "causeway/base/log.h"
#include "causeway/base/status_macros.h"
#include "causeway/base/timers.h"
#include "causeway/bin/head.h"
#include "causeway/bin/head_options.h"
#include "causeway/bin/ready_file.h"

namespace causeway {
namespace {

absl::Status Serve(int argc, char** argv, const sigset_t& ending) {
  ASSIGN_OR_RETURN(const HeadOptions options, ParseHeadOptions(argc, argv));
  ASSIGN_OR_RETURN(std::unique_ptr<Head> head,
                   Head::Start(options, [] { ::kill(::getpid(), SIGTERM); }));
  LOG(INFO) << "on " << options.host << ": JAX clients at port " << head->proxy_port()
            << ", workers at " << head->server_port() << ", operations at " << head->ops_port();
  if (!options.ready_file.empty()) {
    RETURN_IF_ERROR(WriteReadyFile(options.ready_file, {.pid = ::getpid(),
                                                        .proxy_port = head->proxy_port(),
                                                        .server_port = head->server_port(),
                                                        .ops_port = head->ops_port()}));
  }
  int signal = 0;
  ::sigwait(&ending, &signal);
  LOG(INFO) << "ending on " << strsignal(signal);
  // A second signal ends the process at once.
  ::pthread_sigmask(SIG_UNBLOCK, &ending, nullptr);
  RealTimers watchdog;
  watchdog.Schedule(absl::Seconds(limits::kHeadShutdownSecondsMax), [] {
    LOG(ERROR) << "the orderly end took too long; leaving";
    ::_exit(1);
  });
  head->Stop("the head was told to end");
  head.reset();
  return absl::OkStatus();
}

}  // namespace
}  // namespace causeway

int main(int argc, char** argv) {
  // Debian builds Abseil with its lock-order checker on: a graph search at every lock.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  causeway::SetLogRole("head");
  // Every thread inherits the mask; the main thread waits for these two.
  sigset_t ending;
  sigemptyset(&ending);
  sigaddset(&ending, SIGTERM);
  sigaddset(&ending, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &ending, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  const absl::Status status = causeway::Serve(argc, argv, ending);
  if (status.ok()) return 0;
  std::fprintf(stderr, "causewayd: %s\n", std::string(status.message()).c_str());
  return 1;
}
