// The null server: a stock JAX client's requests are answered, and nothing is computed.
//
//   bench_null_server [PORT [DEVICES]]
//
// Listens on 127.0.0.1 (port 0: any free one), prints one line {"port": N} and runs until its
// standard input closes, so that it cannot outlive the benchmark that started it.
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>

#include <grpcpp/grpcpp.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "bench/null_server/null_service.h"

int main(int argc, char** argv) {
  int port = 0;
  int devices = 1;
  const bool understood = (argc < 2 || (absl::SimpleAtoi(argv[1], &port) && port >= 0)) &&
                          (argc < 3 || (absl::SimpleAtoi(argv[2], &devices) && devices > 0));
  if (!understood || argc > 3) {
    std::fprintf(stderr, "usage: %s [PORT [DEVICES]], both whole numbers\n", argv[0]);
    return 2;
  }
  // Distributions build Abseil with its deadlock detector on, which costs every lock a global one.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  causeway::bench::NullService service(devices);
  grpc::ServerBuilder builder;
  int bound = 0;
  builder.AddListeningPort(absl::StrCat("127.0.0.1:", port), grpc::InsecureServerCredentials(),
                           &bound);
  builder.SetMaxReceiveMessageSize(-1);
  builder.SetMaxSendMessageSize(-1);
  builder.RegisterService(&service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || bound == 0) {
    std::fprintf(stderr, "cannot listen on 127.0.0.1:%d: give another port, or 0\n", port);
    return 1;
  }
  std::printf("{\"port\": %d}\n", bound);
  std::fflush(stdout);
  char ignored[256];
  while (read(STDIN_FILENO, ignored, sizeof(ignored)) > 0) {
  }
  server->Shutdown(std::chrono::system_clock::now());
  return 0;
}
