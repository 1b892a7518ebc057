// How an array is cut into shards over a list of devices: tile arithmetic without any XLA.
//
// Shard i lives on devices()[i]. Source of the tile rules: OpSharding in OpenXLA's xla_data.proto.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "causeway/base/strong_id.h"
#include "causeway/model/dtype.h"

namespace causeway::model {

using Shape = std::vector<int64_t>;

// What is known of an array wherever it lies.
struct ArrayType {
  DType dtype = DType::kInvalid;
  Shape shape;  // global
};

// A half-open box of an array, one [start, limit) a dimension.
struct Box {
  std::vector<int64_t> start;
  std::vector<int64_t> limit;
  friend bool operator==(const Box&, const Box&) = default;
  Shape shape() const;
  int64_t num_elements() const;
  bool empty() const { return num_elements() == 0; }
};

// The whole of `shape` as a box.
Box FullBox(const Shape& shape);
// The common part of two boxes of one rank; has zero elements where they do not meet.
Box Intersect(const Box& a, const Box& b);
int64_t NumElements(const Shape& shape);
// For shapes that come from elsewhere; all arithmetic here is safe on those that pass.
// INVALID_ARGUMENT for a negative dimension, RESOURCE_EXHAUSTED for too many dimensions or elements.
absl::Status CheckShape(const Shape& shape);

// XLA's OpSharding, without its protocol buffer.
struct OpSharding {
  enum class Type { kReplicated, kMaximal, kTuple, kOther, kManual, kUnknown, kUnreduced };
  Type type = Type::kReplicated;
  std::vector<int64_t> tile_dims;     // rank dimensions, then subgroup dimensions
  std::vector<int64_t> tile_devices;  // explicit assignment; else the iota form below
  std::vector<int64_t> iota_reshape_dims;
  std::vector<int32_t> iota_transpose_perm;
  bool replicate_on_last_tile_dim = false;
  std::vector<Type> last_tile_dims;

  // Position in the flat tile grid -> index into the device list. INVALID_ARGUMENT when the
  // assignment is not a permutation of 0..n-1.
  absl::StatusOr<std::vector<int64_t>> TileAssignment() const;
};

// An immutable sharding; shared between arrays, compared by value of its wire form.
class Sharding {
 public:
  enum class Kind { kHlo, kSingleDevice, kConcreteEven, kConcrete, kOpaque };

  static absl::StatusOr<std::shared_ptr<const Sharding>> Hlo(std::vector<DeviceId> devices,
                                                             std::string memory_kind,
                                                             OpSharding op);
  static std::shared_ptr<const Sharding> SingleDevice(DeviceId device, std::string memory_kind);
  static std::shared_ptr<const Sharding> ConcreteEven(std::vector<DeviceId> devices,
                                                      std::string memory_kind, Shape shape,
                                                      Shape shard_shape, bool fully_replicated);
  static std::shared_ptr<const Sharding> Concrete(std::vector<DeviceId> devices,
                                                  std::string memory_kind, Shape shape,
                                                  std::vector<Shape> shard_shapes);
  static std::shared_ptr<const Sharding> Opaque(std::vector<DeviceId> devices,
                                                std::string memory_kind);

  Kind kind() const { return kind_; }
  const std::vector<DeviceId>& devices() const { return devices_; }
  int num_shards() const { return static_cast<int>(devices_.size()); }
  // "" is the device's default memory, which is "device".
  const std::string& memory_kind() const { return memory_kind_; }
  const OpSharding& op_sharding() const { return op_; }
  // The array shape that a kConcrete or kConcreteEven sharding was made for; empty for others.
  const Shape& global_shape() const { return shape_; }
  const Shape& shard_shape() const { return shard_shape_; }
  const std::vector<Shape>& shard_shapes() const { return shard_shapes_; }
  bool fully_replicated() const;

  // Shape of shard `i` of an array of `shape`. INVALID_ARGUMENT when the ranks do not fit.
  absl::StatusOr<Shape> ShardShape(const Shape& shape, int i) const;
  // Shape of one device's part of a program's parameter or result: as XLA has it, with the last tiles
  // padded to the size of all others. INVALID_ARGUMENT when the shards differ in another way, or the
  // ranks do not fit.
  absl::StatusOr<Shape> TileShape(const Shape& shape) const;
  // Whether no shard is smaller than the tile.
  bool Even(const Shape& shape) const;
  // The part of the array that shard `i` holds; UNIMPLEMENTED for kinds that do not say
  // (Concrete with several shards, Opaque, ConcreteEven that is not replicated).
  absl::StatusOr<Box> ShardBox(const Shape& shape, int i) const;

  // The same cut on other devices or in another memory.
  std::shared_ptr<const Sharding> WithDevices(std::vector<DeviceId> devices,
                                              std::string memory_kind) const;

 private:
  Sharding() = default;
  int64_t TileDim(size_t dim) const;

  Kind kind_ = Kind::kSingleDevice;
  std::vector<DeviceId> devices_;
  std::string memory_kind_;
  OpSharding op_;
  std::vector<int64_t> tile_of_device_;  // device index -> position in the tile grid (kHlo, tiled)
  Shape shape_;                          // kConcrete*, the global shape it was made for
  Shape shard_shape_;                    // kConcreteEven
  std::vector<Shape> shard_shapes_;      // kConcrete
  bool even_replicated_ = false;         // kConcreteEven
};

using ShardingRef = std::shared_ptr<const Sharding>;

// "device" and "" are the same memory.
bool SameMemoryKind(const std::string& a, const std::string& b);

}  // namespace causeway::model
