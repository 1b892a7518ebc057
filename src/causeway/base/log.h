// Leveled logging to standard error: LOG(INFO) << ...; one line an entry, safe from many threads.
//
// The level that is printed comes from CAUSEWAY_LOG_LEVEL (debug, info, warning, error, fatal); default
// info.
#pragma once

#include <sstream>

namespace causeway {

enum class LogLevel { kDebug = 0, kInfo = 1, kWarning = 2, kError = 3, kFatal = 4 };

// The lowest level that is printed; read once from the environment.
LogLevel MinLogLevel();

// Puts `role` ("head", "worker 3") into every later line of this process.
void SetLogRole(const char* role);

// One entry; the destructor writes it. kFatal aborts the process afterwards.
class LogMessage {
 public:
  LogMessage(LogLevel level, const char* file, int line);
  ~LogMessage();
  LogMessage(const LogMessage&) = delete;
  LogMessage& operator=(const LogMessage&) = delete;
  std::ostream& stream() { return stream_; }

 private:
  const LogLevel level_;
  std::ostringstream stream_;
};

// Swallows the stream expression of a disabled entry.
struct LogVoidify {
  void operator&(std::ostream&) {}
};

}  // namespace causeway

#define CAUSEWAY_LOG_DEBUG ::causeway::LogLevel::kDebug
#define CAUSEWAY_LOG_INFO ::causeway::LogLevel::kInfo
#define CAUSEWAY_LOG_WARNING ::causeway::LogLevel::kWarning
#define CAUSEWAY_LOG_ERROR ::causeway::LogLevel::kError
#define CAUSEWAY_LOG_FATAL ::causeway::LogLevel::kFatal

#define LOG(severity)                                                    \
  (CAUSEWAY_LOG_##severity < ::causeway::MinLogLevel())                  \
      ? (void)0                                                          \
      : ::causeway::LogVoidify() &                                       \
            ::causeway::LogMessage(CAUSEWAY_LOG_##severity, __FILE__, __LINE__).stream()
