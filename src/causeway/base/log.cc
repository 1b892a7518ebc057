// Writes log entries to standard error as single write(2) calls.
#include "causeway/base/log.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "causeway/base/probes.h"

namespace causeway {
namespace {

char g_role[64] = "";

const char* LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "D";
    case LogLevel::kInfo:
      return "I";
    case LogLevel::kWarning:
      return "W";
    case LogLevel::kError:
      return "E";
    case LogLevel::kFatal:
      return "F";
  }
  return "?";
}

LogLevel ParseLevel(const char* text) {
  if (text == nullptr) return LogLevel::kInfo;
  if (std::strcmp(text, "debug") == 0) return LogLevel::kDebug;
  if (std::strcmp(text, "warning") == 0) return LogLevel::kWarning;
  if (std::strcmp(text, "error") == 0) return LogLevel::kError;
  if (std::strcmp(text, "fatal") == 0) return LogLevel::kFatal;
  return LogLevel::kInfo;
}

}  // namespace

LogLevel MinLogLevel() {
  static const LogLevel level = ParseLevel(std::getenv("CAUSEWAY_LOG_LEVEL"));
  return level;
}

void SetLogRole(const char* role) {
  std::strncpy(g_role, role, sizeof(g_role) - 1);
}

LogMessage::LogMessage(LogLevel level, const char* file, int line) : level_(level) {
  const char* slash = std::strrchr(file, '/');
  // A simulation has its own clock, and its trace must be the same on every run.
  if (CurrentSimHooks() != nullptr) return;
  stream_ << LevelName(level)
          << absl::FormatTime(" %Y-%m-%d %H:%M:%E6S ", absl::Now(), absl::LocalTimeZone());
  if (g_role[0] != '\0') stream_ << g_role << ' ';
  stream_ << (slash != nullptr ? slash + 1 : file) << ':' << line << "] ";
}

LogMessage::~LogMessage() {
  const std::string text = absl::StrCat(stream_.str(), "\n");
  if (SimHooks* hooks = CurrentSimHooks(); hooks != nullptr) {
    hooks->Log(static_cast<int>(level_), stream_.str());
    if (level_ != LogLevel::kFatal) return;
  }
  // A short write to a log is not worth a retry loop.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
  if (level_ == LogLevel::kFatal) std::abort();
}

}  // namespace causeway
