// Shardings between the IFRT wire and model::Sharding.
//
// Errors: INVALID_ARGUMENT for bytes that are no sharding or that contradict themselves,
// UNIMPLEMENTED for kinds that Causeway does not know (the message names the kind).
// Thread safety: the functions are pure; a ShardingCache belongs to one thread at a time.
#pragma once

#include <cstddef>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "causeway/model/sharding.h"

namespace causeway::wire {

// A serialized xla.OpSharding, in either form of tile assignment.
absl::StatusOr<model::OpSharding> ParseOpSharding(absl::string_view bytes);
std::string SerializeOpSharding(const model::OpSharding& op);

// A serialized xla.ifrt.ShardingProto: a type name and that type's own message.
absl::StatusOr<model::ShardingRef> ParseSharding(absl::string_view bytes);
// The inverse. `default_memory_kind` is written where the sharding leaves its memory open, because
// clients compare it with the kind that they were told.
std::string SerializeSharding(const model::Sharding& sharding,
                              absl::string_view default_memory_kind);

// Remembers shardings by their bytes: a client sends the same few again and again.
class ShardingCache {
 public:
  explicit ShardingCache(size_t max_entries = 4096) : max_entries_(max_entries) {}
  absl::StatusOr<model::ShardingRef> Parse(absl::string_view bytes);
  size_t size() const { return entries_.size(); }

 private:
  static constexpr size_t kMaxEntryBytes = 64 << 10;  // larger ones are not remembered
  const size_t max_entries_;
  absl::flat_hash_map<std::string, model::ShardingRef> entries_;
};

}  // namespace causeway::wire
