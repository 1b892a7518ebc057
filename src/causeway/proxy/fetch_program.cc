// Parses and checks fetch programs.
#include "causeway/proxy/fetch_program.h"

#include <nlohmann/json.hpp>

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace causeway::proxy {

using nlohmann::json;

absl::StatusOr<std::optional<core::CompileRequest>> DecodeFetchProgram(const std::string& text,
                                                                       const std::string& folder) {
  if (!absl::StrContains(text, "causeway_fetch")) return std::nullopt;
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object() || !root.contains("causeway_fetch")) return std::nullopt;
  const json& fetch = root["causeway_fetch"];
  auto bad = [](const std::string& why) {
    return absl::InvalidArgumentError(absl::StrCat("Bad PluginProgram: causeway_fetch ", why));
  };
  if (!fetch.is_object() || !fetch.contains("path") || !fetch["path"].is_string() ||
      !fetch.contains("device_ids") || !fetch["device_ids"].is_array()) {
    return bad("needs a path and device_ids");
  }
  core::CompileRequest request;
  request.kind = core::ProgramKind::kFetch;
  request.program = fetch["path"].get<std::string>();
  const std::string prefix = absl::StrCat(folder, "/");
  if (folder.empty() || !absl::StartsWith(request.program, prefix) ||
      request.program.find('/', prefix.size()) != std::string::npos) {
    return bad("may write to the folder only that the client named when it connected");
  }
  for (const json& id : fetch["device_ids"]) {
    if (!id.is_number_integer()) return bad("has a device id that is no number");
    request.devices.emplace_back(id.get<int32_t>());
  }
  return request;
}

}  // namespace causeway::proxy
