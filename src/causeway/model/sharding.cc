// Tile arithmetic of shardings.
#include "causeway/model/sharding.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "causeway/base/limits.h"
#include "causeway/base/status_macros.h"

namespace causeway::model {
namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

Shape Box::shape() const {
  Shape out(start.size());
  for (size_t d = 0; d < start.size(); ++d) out[d] = std::max<int64_t>(0, limit[d] - start[d]);
  return out;
}

int64_t Box::num_elements() const { return NumElements(shape()); }

Box FullBox(const Shape& shape) { return Box{std::vector<int64_t>(shape.size(), 0), shape}; }

Box Intersect(const Box& a, const Box& b) {
  Box out = a;
  for (size_t d = 0; d < a.start.size(); ++d) {
    out.start[d] = std::max(a.start[d], b.start[d]);
    out.limit[d] = std::max(out.start[d], std::min(a.limit[d], b.limit[d]));
  }
  return out;
}

int64_t NumElements(const Shape& shape) {
  int64_t n = 1;
  for (int64_t d : shape) n *= d;
  return n;
}

absl::Status CheckShape(const Shape& shape) {
  if (shape.size() > limits::kArrayRankMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("an array of ", shape.size(), " dimensions; kArrayRankMax = ",
                     limits::kArrayRankMax, " are possible: reshape it"));
  }
  int64_t elements = 1;
  for (int64_t d : shape) {
    if (d < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("an array dimension is ", d, "; dimensions start at 0"));
    }
    if (d > limits::kArrayElementsMax / elements) {
      return absl::ResourceExhaustedError(
          absl::StrCat("an array of more than kArrayElementsMax = ", limits::kArrayElementsMax,
                       " elements; use smaller arrays"));
    }
    elements *= std::max<int64_t>(1, d);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int64_t>> OpSharding::TileAssignment() const {
  int64_t n = 1;
  for (int64_t d : tile_dims) {
    if (d <= 0 || d > limits::kShardsMax / n) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "sharding: a tile assignment needs 1 to kShardsMax = ", limits::kShardsMax, " tiles"));
    }
    n *= d;
  }
  std::vector<int64_t> out;
  if (!tile_devices.empty()) {
    out = tile_devices;
  } else if (iota_reshape_dims.empty()) {
    for (int64_t i = 0; i < n; ++i) out.push_back(i);
  } else {
    // iota(n), reshaped to iota_reshape_dims, transposed by the permutation, flattened.
    const size_t rank = iota_reshape_dims.size();
    if (iota_transpose_perm.size() != rank) {
      return absl::InvalidArgumentError("sharding: iota permutation and dimensions differ in rank");
    }
    int64_t cells = 1;
    for (int64_t d : iota_reshape_dims) {
      if (d <= 0 || d > n / cells) {
        return absl::InvalidArgumentError("sharding: iota size differs from tile size");
      }
      cells *= d;
    }
    std::vector<int64_t> stride(rank, 1);
    for (size_t d = rank; d-- > 1;) stride[d - 1] = stride[d] * iota_reshape_dims[d];
    std::vector<int64_t> dims(rank), strides(rank), index(rank, 0);
    int64_t total = 1;
    for (size_t d = 0; d < rank; ++d) {
      const int32_t p = iota_transpose_perm[d];
      if (p < 0 || static_cast<size_t>(p) >= rank) {
        return absl::InvalidArgumentError("sharding: iota permutation out of range");
      }
      dims[d] = iota_reshape_dims[p];
      strides[d] = stride[p];
      total *= dims[d];
    }
    if (total != n) return absl::InvalidArgumentError("sharding: iota size differs from tile size");
    out.reserve(n);
    for (int64_t i = 0; i < n; ++i) {
      int64_t value = 0;
      for (size_t d = 0; d < rank; ++d) value += index[d] * strides[d];
      out.push_back(value);
      for (size_t d = rank; d-- > 0;) {
        if (++index[d] < dims[d]) break;
        index[d] = 0;
      }
    }
  }
  if (static_cast<int64_t>(out.size()) != n) {
    return absl::InvalidArgumentError(absl::StrCat("sharding: ", out.size(),
                                                   " devices in a tile assignment of ", n));
  }
  std::vector<bool> seen(n, false);
  for (int64_t v : out) {
    if (v < 0 || v >= n || seen[v]) {
      return absl::InvalidArgumentError("sharding: tile assignment is not a permutation");
    }
    seen[v] = true;
  }
  return out;
}

absl::StatusOr<ShardingRef> Sharding::Hlo(std::vector<DeviceId> devices, std::string memory_kind,
                                          OpSharding op) {
  std::shared_ptr<Sharding> s(new Sharding());
  s->kind_ = Kind::kHlo;
  if (op.type == OpSharding::Type::kTuple) {
    return absl::InvalidArgumentError("sharding: a tuple sharding cannot describe one array");
  }
  if (op.type == OpSharding::Type::kOther) {
    ASSIGN_OR_RETURN(std::vector<int64_t> assignment, op.TileAssignment());
    if (assignment.size() != devices.size()) {
      return absl::InvalidArgumentError(absl::StrCat("sharding: ", assignment.size(),
                                                     " tiles for ", devices.size(), " devices"));
    }
    s->tile_of_device_.resize(assignment.size());
    for (size_t pos = 0; pos < assignment.size(); ++pos) s->tile_of_device_[assignment[pos]] = pos;
  }
  s->devices_ = std::move(devices);
  s->memory_kind_ = std::move(memory_kind);
  s->op_ = std::move(op);
  return ShardingRef(std::move(s));
}

ShardingRef Sharding::SingleDevice(DeviceId device, std::string memory_kind) {
  std::shared_ptr<Sharding> s(new Sharding());
  s->kind_ = Kind::kSingleDevice;
  s->devices_ = {device};
  s->memory_kind_ = std::move(memory_kind);
  return s;
}

ShardingRef Sharding::ConcreteEven(std::vector<DeviceId> devices, std::string memory_kind,
                                   Shape shape, Shape shard_shape, bool fully_replicated) {
  std::shared_ptr<Sharding> s(new Sharding());
  s->kind_ = Kind::kConcreteEven;
  s->devices_ = std::move(devices);
  s->memory_kind_ = std::move(memory_kind);
  s->shape_ = std::move(shape);
  s->shard_shape_ = std::move(shard_shape);
  s->even_replicated_ = fully_replicated;
  return s;
}

ShardingRef Sharding::Concrete(std::vector<DeviceId> devices, std::string memory_kind, Shape shape,
                               std::vector<Shape> shard_shapes) {
  std::shared_ptr<Sharding> s(new Sharding());
  s->kind_ = Kind::kConcrete;
  s->devices_ = std::move(devices);
  s->memory_kind_ = std::move(memory_kind);
  s->shape_ = std::move(shape);
  s->shard_shapes_ = std::move(shard_shapes);
  return s;
}

ShardingRef Sharding::Opaque(std::vector<DeviceId> devices, std::string memory_kind) {
  std::shared_ptr<Sharding> s(new Sharding());
  s->kind_ = Kind::kOpaque;
  s->devices_ = std::move(devices);
  s->memory_kind_ = std::move(memory_kind);
  return s;
}

bool Sharding::fully_replicated() const {
  if (devices_.size() == 1) return true;
  switch (kind_) {
    case Kind::kSingleDevice:
      return true;
    case Kind::kConcreteEven:
      return even_replicated_;
    case Kind::kConcrete:
    case Kind::kOpaque:
      return false;
    case Kind::kHlo:
      break;
  }
  if (op_.type == OpSharding::Type::kReplicated) return true;
  if (op_.type != OpSharding::Type::kOther) return false;
  // Tiled, yet every data dimension may be cut in one: only subgroup dimensions are larger.
  const size_t subgroups =
      op_.last_tile_dims.size() + (op_.replicate_on_last_tile_dim ? size_t{1} : size_t{0});
  if (op_.tile_dims.size() < subgroups) return false;
  for (size_t d = 0; d + subgroups < op_.tile_dims.size(); ++d) {
    if (op_.tile_dims[d] != 1) return false;
  }
  for (OpSharding::Type t : op_.last_tile_dims) {
    if (t != OpSharding::Type::kReplicated) return false;
  }
  return true;
}

int64_t Sharding::TileDim(size_t dim) const {
  if (kind_ != Kind::kHlo || op_.type != OpSharding::Type::kOther) return 1;
  return dim < op_.tile_dims.size() ? op_.tile_dims[dim] : 1;
}

absl::StatusOr<Shape> Sharding::ShardShape(const Shape& shape, int i) const {
  if (i < 0 || i >= num_shards()) {
    return absl::InvalidArgumentError(
        absl::StrCat("shard ", i, " of an array with ", num_shards(), " shards"));
  }
  if (kind_ == Kind::kConcreteEven) return shard_shape_;
  if (kind_ == Kind::kConcrete) {
    if (static_cast<size_t>(i) >= shard_shapes_.size()) {
      return absl::InvalidArgumentError("concrete sharding lists fewer shapes than shards");
    }
    return shard_shapes_[i];
  }
  if (kind_ != Kind::kHlo || op_.type != OpSharding::Type::kOther) return shape;
  const absl::StatusOr<Box> box = ShardBox(shape, i);
  if (!box.ok()) return box.status();
  return box->shape();
}

absl::StatusOr<Shape> Sharding::TileShape(const Shape& shape) const {
  if (kind_ == Kind::kConcrete) {
    ASSIGN_OR_RETURN(Shape first, ShardShape(shape, 0));
    for (int i = 1; i < num_shards(); ++i) {
      ASSIGN_OR_RETURN(const Shape other, ShardShape(shape, i));
      if (other != first) {
        return absl::InvalidArgumentError(absl::StrCat(
            "shard ", i, " has the shape [", absl::StrJoin(other, ","), "], shard 0 has [",
            absl::StrJoin(first, ","), "]"));
      }
    }
    return first;
  }
  if (kind_ != Kind::kHlo || op_.type != OpSharding::Type::kOther) return ShardShape(shape, 0);
  if (op_.tile_dims.size() < shape.size()) return ShardBox(shape, 0).status();
  Shape tile;
  for (size_t d = 0; d < shape.size(); ++d) tile.push_back(CeilDiv(shape[d], op_.tile_dims[d]));
  return tile;
}

bool Sharding::Even(const Shape& shape) const {
  if (kind_ != Kind::kHlo || op_.type != OpSharding::Type::kOther) return true;
  for (size_t d = 0; d < shape.size() && d < op_.tile_dims.size(); ++d) {
    if (shape[d] % op_.tile_dims[d] != 0) return false;
  }
  return true;
}

absl::StatusOr<Box> Sharding::ShardBox(const Shape& shape, int i) const {
  if (i < 0 || i >= num_shards()) {
    return absl::InvalidArgumentError(
        absl::StrCat("shard ", i, " of an array with ", num_shards(), " shards"));
  }
  if (fully_replicated()) return FullBox(shape);
  if (kind_ != Kind::kHlo) {
    return absl::UnimplementedError("this kind of sharding does not say where a shard lies");
  }
  if (op_.type != OpSharding::Type::kOther) return FullBox(shape);
  const size_t rank = shape.size();
  if (op_.tile_dims.size() < rank) {
    return absl::InvalidArgumentError(absl::StrCat("sharding of ", op_.tile_dims.size(),
                                                   " tile dimensions for an array of rank ", rank));
  }
  std::vector<int64_t> coordinate(op_.tile_dims.size(), 0);
  int64_t pos = tile_of_device_[i];
  for (size_t d = op_.tile_dims.size(); d-- > 0;) {
    coordinate[d] = pos % op_.tile_dims[d];
    pos /= op_.tile_dims[d];
  }
  Box box = FullBox(shape);
  for (size_t d = 0; d < rank; ++d) {
    const int64_t size = CeilDiv(shape[d], op_.tile_dims[d]);
    box.start[d] = std::min(coordinate[d] * size, shape[d]);
    box.limit[d] = std::min(box.start[d] + size, shape[d]);
  }
  return box;
}

ShardingRef Sharding::WithDevices(std::vector<DeviceId> devices, std::string memory_kind) const {
  std::shared_ptr<Sharding> s(new Sharding(*this));
  s->devices_ = std::move(devices);
  s->memory_kind_ = std::move(memory_kind);
  return s;
}

bool SameMemoryKind(const std::string& a, const std::string& b) {
  const bool a_default = a.empty() || a == "device";
  const bool b_default = b.empty() || b == "device";
  return a_default == b_default && (a_default || a == b);
}

}  // namespace causeway::model
