// Scans for the channel attribute; no MLIR needed, since strings are stored as they are.
#include "causeway/callbacks/programs.h"

#include "absl/strings/numbers.h"
#include "causeway/callbacks/frame.h"

namespace causeway::callbacks {
namespace {
constexpr absl::string_view kPrefix = "causeway-callbacks:";
constexpr size_t kDigitsMax = 20;
}  // namespace

std::optional<ProgramGroup> ParseChannel(absl::string_view text) {
  if (text.size() < kPrefix.size() + kTokenChars + 3 || text.substr(0, kPrefix.size()) != kPrefix) {
    return std::nullopt;
  }
  text.remove_prefix(kPrefix.size());
  ProgramGroup result;
  result.token = std::string(text.substr(0, kTokenChars));
  text.remove_prefix(kTokenChars);
  if (!IsToken(result.token) || text.front() != ':' || text.back() != ';') return std::nullopt;
  text = text.substr(1, text.size() - 2);
  if (text.empty() || text.size() > kDigitsMax ||
      text.find_first_not_of("0123456789") != text.npos || !absl::SimpleAtoi(text, &result.group)) {
    return std::nullopt;
  }
  return result;
}

std::optional<ProgramGroup> FindGroup(absl::string_view program) {
  for (size_t at = program.find(kPrefix); at != program.npos; at = program.find(kPrefix, at + 1)) {
    const absl::string_view rest =
        program.substr(at, kPrefix.size() + kTokenChars + kDigitsMax + 2);
    const size_t end = rest.find(';');
    if (end == rest.npos) continue;
    if (std::optional<ProgramGroup> found = ParseChannel(rest.substr(0, end + 1))) return found;
  }
  return std::nullopt;
}

}  // namespace causeway::callbacks
