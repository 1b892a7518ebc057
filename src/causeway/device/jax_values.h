// What the jaxlib device hands out: arrays, loaded programs, completions, host copies.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "causeway/device/python.h"
#include "causeway/device/types.h"

namespace causeway::device {

// One jax array with all local shards.
class JaxArray final : public Array {
 public:
  JaxArray(PyRef array, std::shared_ptr<const std::vector<int32_t>> devices, int64_t bytes)
      : array_(std::move(array)), devices_(std::move(devices)), bytes_(bytes) {}
  const std::vector<int32_t>& devices() const override { return *devices_; }
  int64_t bytes() const override { return bytes_; }
  PyObject* array() const { return array_.get(); }
  // What the backend's adopt wants to see again; null before the first time.
  PyObject* views() const { return views_.get(); }
  void set_views(PyRef views) { views_ = std::move(views); }
  const std::shared_ptr<const std::vector<int32_t>>& shared_devices() const { return devices_; }

 private:
  const PyRef array_;
  const std::shared_ptr<const std::vector<int32_t>> devices_;
  const int64_t bytes_;
  PyRef views_;
};

// An executable on physical devices, with this host's part of its device list.
class JaxProgram final : public Program {
 public:
  JaxProgram(PyRef loaded, std::vector<int32_t> local)
      : loaded_(std::move(loaded)),
        local_(std::make_shared<const std::vector<int32_t>>(std::move(local))) {}
  PyObject* loaded() const { return loaded_.get(); }
  const std::shared_ptr<const std::vector<int32_t>>& local() const { return local_; }
  // Bytes of each output here; empty until the first launch.
  std::vector<int64_t> output_bytes;
  // Whether it may have collectives.
  bool on_several_devices = false;
  bool host_callbacks = false;

 private:
  const PyRef loaded_;
  const std::shared_ptr<const std::vector<int32_t>> local_;
};

// Waits for a launch's token.
class JaxCompletion final : public Completion {
 public:
  using Release = std::function<absl::Status()>;

  // Without a token XLA has finished the launch already. `spoiled` is SpoiledMessages() before the
  // launch, which has failed if it is another at the launch's end; -1 for one without messages.
  // `release` is called once, at the end, and may know of a failure that XLA does not; may be null.
  JaxCompletion(PyObject* backend, PyRef token, int64_t spoiled, Release release)
      : backend_(backend), token_(std::move(token)), spoiled_(spoiled),
        release_(std::move(release)) {}
  ~JaxCompletion() override;
  absl::Status Await() override;

 private:
  PyObject* const backend_;
  const PyRef token_;
  const int64_t spoiled_;
  Release release_;
};

// Waits for one shard's bytes.
class JaxHostCopy final : public HostCopy {
 public:
  JaxHostCopy(PyObject* backend, PyRef piece, bool here)
      : backend_(backend), piece_(std::move(piece)), here_(here) {}
  absl::StatusOr<HostShard> Await() override;
  bool here() const override { return here_; }

 private:
  PyObject* const backend_;
  const PyRef piece_;
  const bool here_;
};

// With the GIL: reads the dict that Backend.compile returns.
Compiled ReadCompiled(PyObject* dict);

}  // namespace causeway::device
