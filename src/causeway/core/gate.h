// Gates: "may this value be shown to a client yet?", as a small graph.
//
// A launch on several workers has one gate. It opens when every member has confirmed that it and
// all earlier launches of its order succeeded there, and when the gates of its inputs are open; it
// fails with the first cause otherwise. Values behind a gate are computed ahead but never shown:
// collectives carry no tag, so a launch that one worker skipped can give its peers wrong bytes
// without an error, and only the members' confirmations tell (docs/architecture.md).
//
// Thread safety: none; gates belong to the controller and are touched under its lock only.
#pragma once

#include <memory>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"

namespace causeway::core {

class Gate;
// nullptr stands for an open gate.
using GateRef = std::shared_ptr<Gate>;

class Gate : public std::enable_shared_from_this<Gate> {
 public:
  // Opens after `pending` calls of Release.
  static GateRef Create(int pending);
  // The same, of a value whose bytes a client is still sending.
  static GateRef OfUpload(int pending);
  // A gate that opens when all of `gates` are open; nullptr when they are already, and the gate
  // itself when only one is not.
  static GateRef Join(const std::vector<GateRef>& gates);

  bool open() const { return state_ == State::kOpen; }
  bool failed() const { return state_ == State::kFailed; }
  bool settled() const { return state_ != State::kPending; }
  const absl::Status& error() const { return error_; }
  // Not settled, and it may be for a client that is still sending: nobody else should wait behind
  // what needs this value. Said of OfUpload gates and of what was joined from them.
  bool awaits_upload() const { return upload_ && !settled(); }

  void Release();
  void Fail(const absl::Status& cause);
  // This gate waits for `other` too. Must be pending.
  void After(const GateRef& other);
  // Calls `done` once with OK or the cause: now when settled, else from Release or Fail.
  void OnSettled(absl::AnyInvocable<void(const absl::Status&) &&> done);

 private:
  enum class State { kPending, kOpen, kFailed };
  explicit Gate(int pending) : pending_(pending) {}
  static void Propagate(GateRef first);

  State state_ = State::kPending;
  int pending_;
  bool upload_ = false;
  absl::Status error_;
  std::vector<GateRef> dependents_;
  std::vector<absl::AnyInvocable<void(const absl::Status&) &&>> watchers_;
};

}  // namespace causeway::core
