// Mutation of protocol buffers through reflection.
#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "causeway/fuzz/mutator.h"
#include "google/protobuf/descriptor.h"
#include "ifrt_session.pb.h"

namespace causeway::fuzz {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// Numbers near which mistakes live: sizes, signs, handles of either side.
int64_t Number(int64_t old, Random& random) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  constexpr int64_t kSpecial[] = {0,       1,       2,         -1,        7,       8,
                                  1 << 16, 1 << 20, 1LL << 31, 1LL << 32, 1LL << 40, 1LL << 48,
                                  kMax,    -kMax,   kMax - 1,  kMax / 2,  -kMax - 1};
  switch (random.Below(6)) {
    case 0:
      return kSpecial[random.Below(std::size(kSpecial))];
    case 1:
      return static_cast<int64_t>(static_cast<uint64_t>(old) + 1);
    case 2:
      return static_cast<int64_t>(static_cast<uint64_t>(old) - 1);
    case 3:
      return static_cast<int64_t>(random.Below(16));
    case 4:
      return static_cast<int64_t>(static_cast<uint64_t>(old) ^ (uint64_t{1} << random.Below(64)));
    default:
      return static_cast<int64_t>(random.Next());
  }
}

std::unique_ptr<Message> ByTypeName(const std::string& name) {
  if (name == "xla::ifrt::HloSharding") return std::make_unique<ifrt::HloShardingProto>();
  if (name == "xla::ifrt::SingleDeviceSharding") {
    return std::make_unique<ifrt::SingleDeviceShardingProto>();
  }
  if (name == "xla::ifrt::ConcreteEvenSharding") {
    return std::make_unique<ifrt::ConcreteEvenShardingProto>();
  }
  if (name == "xla::ifrt::ConcreteSharding") return std::make_unique<ifrt::ConcreteShardingProto>();
  if (name == "xla::ifrt::OpaqueSharding") return std::make_unique<ifrt::OpaqueShardingProto>();
  if (name == "xla::ifrt::XlaCompileOptions") {
    return std::make_unique<ifrt::XlaCompileOptionsProto>();
  }
  if (name == "xla::ifrt::CustomCallProgram") {
    return std::make_unique<ifrt::CustomCallProgramProto>();
  }
  if (name == "xla::ifrt::PjRtLayout") return std::make_unique<ifrt::PjRtLayoutProto>();
  if (name == "xla::ifrt::CompactLayout") return std::make_unique<ifrt::CompactLayoutProto>();
  return nullptr;
}

// The message that a bytes field holds, or null.
std::unique_ptr<Message> Inside(const Message& owner, const FieldDescriptor& field) {
  if (const auto* serialized = dynamic_cast<const ifrt::Serialized*>(&owner)) {
    return field.name() == "data" ? ByTypeName(serialized->type_name()) : nullptr;
  }
  if (field.name() == "sharding") return std::make_unique<ifrt::ShardingProto>();
  if (field.name() == "layout") return std::make_unique<ifrt::LayoutProto>();
  return nullptr;
}

class Mutation {
 public:
  Mutation(Random& random, const ByteMutator& bytes) : random_(random), bytes_(bytes) {}

  void Message_(Message* message, int depth) {
    const Reflection& reflection = *message->GetReflection();
    std::vector<const FieldDescriptor*> present;
    reflection.ListFields(*message, &present);
    const auto& type = *message->GetDescriptor();
    if (type.field_count() == 0) return;
    // Mostly a field that is there; now and then any field.
    const FieldDescriptor* field =
        present.empty() || random_.Below(8) == 0
            ? type.field(static_cast<int>(random_.Below(type.field_count())))
            : present[random_.Below(present.size())];
    if (random_.Below(24) == 0) return reflection.ClearField(message, field);
    if (field->is_repeated()) return Repeated(message, *field, depth);
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      if (depth < 12) Message_(reflection.MutableMessage(message, field), depth + 1);
      return;
    }
    Scalar(message, *field, depth);
  }

 private:
  void Text(const Message& owner, const FieldDescriptor& field, std::string* text, int depth) {
    std::unique_ptr<Message> inside = Inside(owner, field);
    if (inside != nullptr && depth < 12 && random_.Below(8) > 0 &&
        inside->ParseFromString(*text)) {
      Message_(inside.get(), depth + 1);
      inside->SerializeToString(text);
    } else {
      bytes_(text);
    }
  }

  void Scalar(Message* message, const FieldDescriptor& field, int depth) {
    const Reflection& r = *message->GetReflection();
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return r.SetInt32(message, &field,
                          static_cast<int32_t>(Number(r.GetInt32(*message, &field), random_)));
      case FieldDescriptor::CPPTYPE_INT64:
        return r.SetInt64(message, &field, Number(r.GetInt64(*message, &field), random_));
      case FieldDescriptor::CPPTYPE_UINT32:
        return r.SetUInt32(message, &field,
                           static_cast<uint32_t>(Number(r.GetUInt32(*message, &field), random_)));
      case FieldDescriptor::CPPTYPE_UINT64:
        return r.SetUInt64(
            message, &field,
            static_cast<uint64_t>(
                Number(static_cast<int64_t>(r.GetUInt64(*message, &field)), random_)));
      case FieldDescriptor::CPPTYPE_BOOL:
        return r.SetBool(message, &field, random_.Below(2) == 0);
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return r.SetDouble(message, &field, static_cast<double>(Number(0, random_)));
      case FieldDescriptor::CPPTYPE_FLOAT:
        return r.SetFloat(message, &field, static_cast<float>(Number(0, random_)));
      case FieldDescriptor::CPPTYPE_ENUM:
        return r.SetEnumValue(message, &field, static_cast<int>(Number(0, random_)));
      case FieldDescriptor::CPPTYPE_STRING: {
        std::string text = r.GetString(*message, &field);
        Text(*message, field, &text, depth);
        return r.SetString(message, &field, text);
      }
      case FieldDescriptor::CPPTYPE_MESSAGE:
        return;
    }
  }

  void Repeated(Message* message, const FieldDescriptor& field, int depth) {
    const Reflection& r = *message->GetReflection();
    const int size = r.FieldSize(*message, &field);
    if (size == 0 || random_.Below(6) == 0) return Add(message, field, depth);
    const int i = static_cast<int>(random_.Below(size));
    if (random_.Below(8) == 0) return r.RemoveLast(message, &field);
    if (random_.Below(8) == 0) return r.SwapElements(message, &field, i, size - 1);
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return r.SetRepeatedInt32(
            message, &field, i,
            static_cast<int32_t>(Number(r.GetRepeatedInt32(*message, &field, i), random_)));
      case FieldDescriptor::CPPTYPE_INT64:
        return r.SetRepeatedInt64(message, &field, i,
                                  Number(r.GetRepeatedInt64(*message, &field, i), random_));
      case FieldDescriptor::CPPTYPE_UINT32:
        return r.SetRepeatedUInt32(
            message, &field, i,
            static_cast<uint32_t>(Number(r.GetRepeatedUInt32(*message, &field, i), random_)));
      case FieldDescriptor::CPPTYPE_UINT64:
        return r.SetRepeatedUInt64(
            message, &field, i,
            static_cast<uint64_t>(Number(
                static_cast<int64_t>(r.GetRepeatedUInt64(*message, &field, i)), random_)));
      case FieldDescriptor::CPPTYPE_STRING: {
        std::string text = r.GetRepeatedString(*message, &field, i);
        Text(*message, field, &text, depth);
        return r.SetRepeatedString(message, &field, i, text);
      }
      case FieldDescriptor::CPPTYPE_MESSAGE:
        if (depth < 12) Message_(r.MutableRepeatedMessage(message, &field, i), depth + 1);
        return;
      default:
        return;
    }
  }

  // A copy of an element, or a fresh one.
  void Add(Message* message, const FieldDescriptor& field, int depth) {
    const Reflection& r = *message->GetReflection();
    const int size = r.FieldSize(*message, &field);
    if (size > 64) return r.RemoveLast(message, &field);
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return r.AddInt32(message, &field, static_cast<int32_t>(Number(size, random_)));
      case FieldDescriptor::CPPTYPE_INT64:
        return r.AddInt64(message, &field, Number(size, random_));
      case FieldDescriptor::CPPTYPE_UINT32:
        return r.AddUInt32(message, &field, static_cast<uint32_t>(Number(size, random_)));
      case FieldDescriptor::CPPTYPE_UINT64:
        return r.AddUInt64(message, &field, static_cast<uint64_t>(Number(size, random_)));
      case FieldDescriptor::CPPTYPE_STRING:
        return r.AddString(message, &field,
                           size > 0 ? r.GetRepeatedString(*message, &field, 0) : std::string());
      case FieldDescriptor::CPPTYPE_MESSAGE: {
        Message* added = r.AddMessage(message, &field);
        if (size > 0 && !field.is_map()) {
          added->CopyFrom(r.GetRepeatedMessage(*message, &field,
                                               static_cast<int>(random_.Below(size))));
        }
        if (depth < 12) Message_(added, depth + 1);
        return;
      }
      default:
        return;
    }
  }

  Random& random_;
  const ByteMutator& bytes_;
};

}  // namespace

void MutateMessage(Message* message, Random& random, const ByteMutator& bytes) {
  Mutation(random, bytes).Message_(message, 0);
}

}  // namespace causeway::fuzz
