// What a simulated client knows to be true: the exact value of every array, and which errors a
// fault would excuse.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "causeway/base/strong_id.h"
#include "causeway/sim/world.h"

namespace causeway::sim {

// What the value of an array rests on. An error is excused when something of it was lost since.
class Lineage {
 public:
  // The value needs this worker from now on.
  void Needs(const World& world, int worker);
  // A launch over several workers that nobody has confirmed yet.
  void NeedsEpoch(const World& world);
  void Merge(const Lineage& other);
  // The value was seen to be there: from now on it rests on its holders alone.
  Lineage Confirmed(const std::vector<int>& holders) const;

  // Empty when `error` is right, else what is wrong with it.
  std::string Judge(const World& world, const absl::Status& error) const;
  // Whether an error would be excused now.
  bool Shaken(const World& world) const;

 private:
  struct Since {
    int losses = 0;
    int troubles = 0;
  };
  std::map<int, Since> workers_;
  int aborts_ = -1;  // epochs that had ended then; -1: needs no epoch
};

// One array of a client. Values are by device, in list order: fake programs work shard by shard.
struct ModelArray {
  ArrayHandle handle;
  std::vector<DeviceId> devices;
  bool tiled = false;  // cut along its only dimension; else every shard has the whole shape
  std::vector<std::vector<double>> values;
  Lineage lineage;
  std::vector<std::shared_ptr<bool>> deleted_marks;

  bool deleted() const;
  void MarkDeleted();
  bool uniform() const;  // all shards alike
  double largest() const;
};
using ModelArrayRef = std::shared_ptr<ModelArray>;

// The programs that clients run, as text for the cluster and as arithmetic for the model.
struct ModelProgram {
  enum class Kind {
    kAdd,        // x + c
    kScale,      // x * 3
    kSum,        // psum(x) + c
    kAdd2,       // x + y
    kMix,        // psum(x) + y
    kDonate,     // x + c, takes x over
    kSumDonate,  // psum(x), takes x over
    kTwo,        // psum(x), x + c
    kSumTwice,   // psum(psum(x) + c)
  };
  static constexpr int kKinds = 9;
  Kind kind = Kind::kAdd;
  int constant = 1;

  int inputs() const { return kind == Kind::kAdd2 || kind == Kind::kMix ? 2 : 1; }
  int outputs() const { return kind == Kind::kTwo ? 2 : 1; }
  bool donates() const { return kind == Kind::kDonate || kind == Kind::kSumDonate; }
  // Elements of a shard: `length`.
  std::string Text(int length) const;
  std::vector<std::vector<std::vector<double>>> Run(
      const std::vector<const ModelArray*>& inputs) const;  // by output, by shard
};

}  // namespace causeway::sim
