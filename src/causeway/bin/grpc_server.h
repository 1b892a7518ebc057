// A gRPC server with the settings that all of ours share.
#pragma once

#include <grpcpp/grpcpp.h>
#include <sys/un.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "causeway/base/limits.h"

namespace causeway {

// Thread safety: none.
class GrpcServer {
 public:
  // `what` and `flag` are for the message when the port is taken.
  GrpcServer(std::string what, std::string flag) : what_(std::move(what)), flag_(std::move(flag)) {
    // Otherwise a second head on the port would start as well, and the two would split its calls.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    // Clients watch their streams with pings of their own.
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1000);
    builder.SetMaxReceiveMessageSize(limits::kMessageBytesMax);
    builder.SetMaxSendMessageSize(-1);
  }

  // For services, before Start.
  grpc::ServerBuilder builder;

  // Before Start: at a Unix socket as well, which costs half of what TCP does. Its folder has to be
  // the user's alone, for it asks nobody who they are. A path that is too long is left out.
  void ListenBeside(const std::string& path) {
    if (path.size() >= sizeof(sockaddr_un::sun_path)) return;
    builder.AddListeningPort("unix:" + path, grpc::InsecureServerCredentials());
  }

  absl::Status Start(const std::string& host, int port) {
    const std::string address =
        host.find(':') == std::string::npos || host[0] == '[' ? absl::StrCat(host, ":", port)
                                                              : absl::StrCat("[", host, "]:", port);
    builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port_);
    server_ = builder.BuildAndStart();
    if (server_ != nullptr && port_ != 0) return absl::OkStatus();
    server_.reset();
    return absl::UnavailableError(absl::StrCat(
        "cannot listen on ", address, " for ", what_,
        ": the port is taken or the address is not this machine's; choose another ", flag_,
        " (0 = any free one), or end the other process"));
  }

  // Ends calls that are still open at `deadline`. Nothing when it never started.
  void Shutdown(absl::Time deadline) {
    if (server_ == nullptr) return;
    server_->Shutdown(absl::ToChronoTime(deadline));
    server_->Wait();
    server_.reset();
  }

  int port() const { return port_; }

 private:
  const std::string what_;
  const std::string flag_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

}  // namespace causeway
