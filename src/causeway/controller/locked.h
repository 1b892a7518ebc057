// The controller's lock as a scope: what must happen when it is released happens here.
#pragma once

#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "causeway/controller/controller.h"
#include "causeway/core/send_burst.h"

namespace causeway::controller {

class ABSL_SCOPED_LOCKABLE Controller::Locked {
 public:
  explicit Locked(Controller* controller) ABSL_EXCLUSIVE_LOCK_FUNCTION(controller->mu_)
      : controller_(controller) {
    controller_->mu_.Lock();
  }
  ~Locked() ABSL_UNLOCK_FUNCTION() {
    controller_->FlushFrees();
    std::vector<absl::AnyInvocable<void() &&>> deferred;
    deferred.swap(controller_->deferred_);
    controller_->mu_.Unlock();
    sends_.Release();
    for (auto& callback : deferred) std::move(callback)();
  }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  Controller* const controller_;
  core::SendBurst sends_;
};

}  // namespace causeway::controller
