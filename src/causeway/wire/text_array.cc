// Element-wise cutting and joining of text arrays.
#include "causeway/wire/text_array.h"

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "causeway/base/status_macros.h"
#include "ifrt_values.pb.h"

namespace causeway::wire {
namespace {

// Calls visit(index in an array of `shape`, index in the box), row-major over the box.
template <class Visit>
void ForEachElement(const model::Shape& shape, const model::Box& box, Visit visit) {
  const int64_t count = box.num_elements();
  std::vector<int64_t> at = box.start;
  for (int64_t i = 0; i < count; ++i) {
    int64_t flat = 0;
    for (size_t d = 0; d < shape.size(); ++d) flat = flat * shape[d] + at[d];
    visit(flat, i);
    for (size_t d = shape.size(); d-- > 0;) {
      if (++at[d] < box.limit[d]) break;
      at[d] = box.start[d];
    }
  }
}

absl::Status CheckBox(const model::Shape& shape, const model::Box& box) {
  bool fits = box.start.size() == shape.size() && box.limit.size() == shape.size();
  for (size_t d = 0; fits && d < shape.size(); ++d) {
    fits = box.start[d] >= 0 && box.start[d] <= box.limit[d] && box.limit[d] <= shape[d];
  }
  if (fits) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("a part of an array of text does not lie in [",
                                                 absl::StrJoin(shape, ","), "]"));
}

}  // namespace

std::string EncodeText(const std::vector<std::string>& elements) {
  ifrt::TextArrayProto proto;
  for (const std::string& element : elements) proto.add_strings(element);
  return proto.SerializeAsString();
}

absl::StatusOr<std::vector<std::string>> ParseText(absl::string_view bytes,
                                                   const model::Shape& shape) {
  ifrt::TextArrayProto proto;
  if (!proto.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::InvalidArgumentError("these bytes are no array of text");
  }
  if (proto.strings_size() != model::NumElements(shape)) {
    return absl::InvalidArgumentError(absl::StrCat(proto.strings_size(), " texts for a shape [",
                                                   absl::StrJoin(shape, ","), "]"));
  }
  std::vector<std::string> elements;
  elements.reserve(static_cast<size_t>(proto.strings_size()));
  for (std::string& text : *proto.mutable_strings()) elements.push_back(std::move(text));
  return elements;
}

absl::StatusOr<std::string> CutText(absl::string_view bytes, const model::Shape& shape,
                                    const model::Box& box) {
  RETURN_IF_ERROR(CheckBox(shape, box));
  ASSIGN_OR_RETURN(std::vector<std::string> from, ParseText(bytes, shape));
  std::vector<std::string> out(static_cast<size_t>(box.num_elements()));
  ForEachElement(shape, box, [&](int64_t flat, int64_t i) { out[i] = std::move(from[flat]); });
  return EncodeText(out);
}

absl::StatusOr<std::string> JoinText(
    const model::Shape& shape, const std::vector<std::pair<model::Box, std::string>>& parts) {
  std::vector<std::vector<std::string>> texts;
  int64_t came = 0;
  for (const auto& [box, bytes] : parts) {
    RETURN_IF_ERROR(CheckBox(shape, box));
    ASSIGN_OR_RETURN(texts.emplace_back(), ParseText(bytes, box.shape()));
    came += box.num_elements();
  }
  // Before memory is taken for the whole: only what came says that there will be so much.
  if (came < model::NumElements(shape)) {
    return absl::InvalidArgumentError(absl::StrCat("parts with ", came, " texts for a shape [",
                                                   absl::StrJoin(shape, ","), "]"));
  }
  std::vector<std::string> out(static_cast<size_t>(model::NumElements(shape)));
  for (size_t p = 0; p < parts.size(); ++p) {
    ForEachElement(shape, parts[p].first,
                   [&](int64_t flat, int64_t i) { out[flat] = std::move(texts[p][i]); });
  }
  return EncodeText(out);
}

}  // namespace causeway::wire
