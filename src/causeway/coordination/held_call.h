// A unary gRPC call that is answered later, or dropped when its caller goes.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace causeway::coordination {

inline grpc::Status ToGrpc(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      std::string(status.message()));
}

// Whoever keeps the call must Finish it exactly once, unless `drop` said that it forgot the call.
// `drop` runs when the caller goes: true means that Finish will never be called for this one.
class HeldCall : public grpc::ServerUnaryReactor {
 public:
  // Set before the handler returns; without it a cancelled call just waits for Finish.
  void OnDrop(std::function<bool()> drop) { drop_ = std::move(drop); }
  void Answer(const absl::Status& status) { Finish(ToGrpc(status)); }

 private:
  void OnCancel() override {
    if (drop_ != nullptr && drop_()) Finish(grpc::Status(grpc::StatusCode::CANCELLED, "dropped"));
  }
  void OnDone() override { delete this; }

  std::function<bool()> drop_;
};

}  // namespace causeway::coordination
