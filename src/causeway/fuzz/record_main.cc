// Stands between gRPC peers and writes down what passes: the raw material of seeds.
//
//   causeway_record LISTEN TARGET FILE     prints its port, and relays every call until ended
//
// One line a message: CALL DIRECTION METHOD BASE64. The direction is '>' to the target, '<' from it,
// and 'm' for a binary header of the caller (METHOD is then the header's name).
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

namespace causeway::fuzz {
namespace {

class Record {
 public:
  explicit Record(const char* path) : file_(path, std::ios::app) {}
  void Add(int call, char direction, const std::string& name, absl::string_view bytes) {
    absl::MutexLock lock(&mu_);
    file_ << call << ' ' << direction << ' ' << name << ' ' << absl::Base64Escape(bytes) << '\n'
          << std::flush;
  }
  void Add(int call, char direction, const std::string& name, const grpc::ByteBuffer& message) {
    std::vector<grpc::Slice> slices;
    std::string bytes;
    if (!message.Dump(&slices).ok()) return;
    for (const grpc::Slice& slice : slices) {
      bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
    Add(call, direction, name, bytes);
  }

 private:
  absl::Mutex mu_;
  std::ofstream file_ ABSL_GUARDED_BY(mu_);
};

// One call, as a server to the caller and as a client to the target; lives until both are over.
class Relayed final : public grpc::ServerGenericBidiReactor {
 public:
  Relayed(grpc::GenericCallbackServerContext* call, grpc::GenericStub& target, Record& record)
      : number_(++count_), method_(call->method()), record_(record), far_(this) {
    for (const auto& [key, value] : call->client_metadata()) {
      const std::string name(key.data(), key.size());
      if (!absl::EndsWith(name, "-bin")) continue;
      const std::string bytes(value.data(), value.size());
      record_.Add(number_, 'm', name, absl::string_view(bytes));
      context_.AddMetadata(name, bytes);
    }
    target.PrepareBidiStreamingCall(&context_, method_, grpc::StubOptions(), &far_);
    far_.AddHold();
    far_.StartCall();
    far_.StartRead(&down_);
    StartRead(&up_);
  }

  void OnReadDone(bool ok) override {
    if (ok) {
      record_.Add(number_, '>', method_, up_);
      far_.StartWrite(&up_);
      return;
    }
    far_.StartWritesDone();
    far_.RemoveHold();
  }
  void OnWriteDone(bool ok) override {
    if (ok) far_.StartRead(&down_);
  }
  void OnCancel() override { context_.TryCancel(); }
  void OnDone() override { Release(); }

 private:
  class Far final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
   public:
    explicit Far(Relayed* near) : near_(near) {}
    void OnReadDone(bool ok) override {
      if (!ok) return;
      near_->record_.Add(near_->number_, '<', near_->method_, near_->down_);
      near_->StartWrite(&near_->down_);
    }
    void OnWriteDone(bool ok) override {
      if (ok) near_->StartRead(&near_->up_);
    }
    void OnDone(const grpc::Status& status) override {
      near_->Finish(status);
      near_->Release();
    }

   private:
    Relayed* const near_;
  };

  void Release() {
    if (--ends_ == 0) delete this;
  }

  static inline std::atomic<int> count_{0};
  const int number_;
  const std::string method_;
  Record& record_;
  std::atomic<int> ends_{2};
  grpc::ClientContext context_;
  grpc::ByteBuffer up_, down_;
  Far far_;
};

class Service final : public grpc::CallbackGenericService {
 public:
  Service(grpc::GenericStub& target, Record& record) : target_(target), record_(record) {}
  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* call) override {
    return new Relayed(call, target_, record_);
  }

 private:
  grpc::GenericStub& target_;
  Record& record_;
};

int Main(const char* listen, const char* target, const char* path) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  grpc::GenericStub stub(
      grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments));
  Record record(path);
  Service service(stub, record);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(listen, grpc::InsecureServerCredentials(), &port);
  builder.SetMaxReceiveMessageSize(-1);
  builder.RegisterCallbackGenericService(&service);
  auto server = builder.BuildAndStart();
  std::printf("%d\n", port);
  std::fflush(stdout);
  int signal = 0;
  sigwait(&signals, &signal);
  server->Shutdown(gpr_time_0(GPR_CLOCK_REALTIME));
  return 0;
}

}  // namespace
}  // namespace causeway::fuzz

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: %s LISTEN TARGET FILE\n", argv[0]);
    return 2;
  }
  return causeway::fuzz::Main(argv[1], argv[2], argv[3]);
}
