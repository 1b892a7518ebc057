// A small reader of the protocol buffer wire format that sorts map entries.
#include "causeway/wire/canonical.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

namespace causeway::wire {
namespace {

// Deeper messages stay as they are.
constexpr int kDepthMax = 16;

struct Field {
  uint64_t number = 0;
  int type = 0;
  std::string head;     // tag, and the length of what follows where there is one
  std::string content;  // of a length-delimited field; else the value's bytes
};

bool ReadVarint(absl::string_view& in, uint64_t& value) {
  value = 0;
  for (int shift = 0; shift < 64 && !in.empty(); shift += 7) {
    const auto byte = static_cast<uint8_t>(in.front());
    in.remove_prefix(1);
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if ((byte & 0x80) == 0) return true;
  }
  return false;
}

void AppendVarint(uint64_t value, std::string& out) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

std::optional<std::vector<Field>> Split(absl::string_view in) {
  std::vector<Field> fields;
  while (!in.empty()) {
    uint64_t tag = 0;
    if (!ReadVarint(in, tag) || tag >> 3 == 0) return std::nullopt;
    Field field;
    field.number = tag >> 3;
    field.type = static_cast<int>(tag & 7);
    AppendVarint(tag, field.head);
    size_t size = 0;
    if (field.type == 0) {
      const absl::string_view before = in;
      uint64_t value = 0;
      if (!ReadVarint(in, value)) return std::nullopt;
      field.content = std::string(before.substr(0, before.size() - in.size()));
      fields.push_back(std::move(field));
      continue;
    }
    if (field.type == 1) {
      size = 8;
    } else if (field.type == 5) {
      size = 4;
    } else if (field.type == 2) {
      uint64_t length = 0;
      if (!ReadVarint(in, length)) return std::nullopt;
      size = length;
    } else {
      return std::nullopt;
    }
    if (size > in.size()) return std::nullopt;
    field.content = std::string(in.substr(0, size));
    in.remove_prefix(size);
    fields.push_back(std::move(field));
  }
  return fields;
}

bool IsEntry(const Field& field) {
  if (field.type != 2) return false;
  const auto inside = Split(field.content);
  return inside.has_value() && inside->size() == 2 && (*inside)[0].number == 1 &&
         (*inside)[1].number == 2;
}

std::string Canonical(absl::string_view message, int depth) {
  auto fields = Split(message);
  if (!fields.has_value() || depth > kDepthMax) return std::string(message);
  for (Field& field : *fields) {
    if (field.type == 2) field.content = Canonical(field.content, depth + 1);
  }
  for (size_t i = 0; i < fields->size();) {
    size_t j = i;
    while (j < fields->size() && (*fields)[j].number == (*fields)[i].number &&
           IsEntry((*fields)[j])) {
      ++j;
    }
    if (j - i > 1) {
      std::sort(fields->begin() + i, fields->begin() + j,
                [](const Field& a, const Field& b) { return a.content < b.content; });
    }
    i = std::max(j, i + 1);
  }
  std::string out;
  for (const Field& field : *fields) {
    out += field.head;
    if (field.type == 2) AppendVarint(field.content.size(), out);
    out += field.content;
  }
  return out;
}

}  // namespace

std::string CanonicalMaps(absl::string_view message) { return Canonical(message, 0); }

}  // namespace causeway::wire
