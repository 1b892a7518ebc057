// Reads /proc/PID/stat (proc(5)): state, start time and exit code.
#include "causeway/base/process_exit.h"

#include <cstring>
#include <fstream>
#include <sstream>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace causeway {
namespace {

struct Stat {
  char state = 0;
  uint64_t start = 0;
  int exit_code = 0;  // as waitpid gives it
};

Stat Parse(absl::string_view text) {
  Stat stat;
  // The second field is the command's name in brackets and may hold anything.
  const size_t end = text.rfind(')');
  if (end == absl::string_view::npos) return stat;
  const std::vector<absl::string_view> fields =
      absl::StrSplit(text.substr(end + 1), absl::ByAnyChar(" \n"), absl::SkipEmpty());
  constexpr size_t kState = 0, kStart = 19, kExitCode = 49;  // fields 3, 22 and 52
  if (fields.size() <= kExitCode || !absl::SimpleAtoi(fields[kStart], &stat.start) ||
      !absl::SimpleAtoi(fields[kExitCode], &stat.exit_code)) {
    return Stat();
  }
  stat.state = fields[kState][0];
  return stat;
}

std::string ReadStat(int pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

uint64_t ProcessStart(int pid) { return Parse(ReadStat(pid)).start; }

std::string HowProcessEnded(int pid, uint64_t start) {
  return HowProcessEnded(ReadStat(pid), start);
}

std::string HowProcessEnded(absl::string_view text, uint64_t start) {
  const Stat stat = Parse(text);
  if (stat.state == 0 || stat.start != start) return "";
  // Of a stopped process the code is the signal that stopped it.
  if (stat.state == 'T' || stat.state == 't') return "";
  const bool over = stat.state == 'Z' || stat.state == 'X';
  if (!over && stat.exit_code == 0) return "";
  const int signal = stat.exit_code & 0x7f;
  if (signal == 0) return absl::StrCat("exit status ", (stat.exit_code >> 8) & 0xff);
  const char* name = sigabbrev_np(signal);
  return absl::StrCat("killed by signal ", signal,
                      name == nullptr ? "" : absl::StrCat(" (SIG", name, ")"));
}

}  // namespace causeway
