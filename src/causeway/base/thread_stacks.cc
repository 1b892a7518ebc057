// A signal to every thread, on which it writes its stack down; names are looked up afterwards.
#include "causeway/base/thread_stacks.h"

#include <dirent.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <vector>

#include "absl/debugging/symbolize.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"

namespace causeway {
namespace {

constexpr int kFrames = 40;
constexpr int kOwnFrames = 2;  // the handler, and the return from it
constexpr absl::Duration kAnswerMax = absl::Milliseconds(300);

struct Slot {
  pid_t thread = 0;
  void* frames[kFrames];
  int depth = 0;
  std::atomic<bool> written{false};
};
struct Slots {
  explicit Slots(size_t n) : size(n), slots(new Slot[n]) { ::sem_init(&answers, 0, 0); }
  const size_t size;
  const std::unique_ptr<Slot[]> slots;
  sem_t answers;
};
std::atomic<Slots*> asked{nullptr};

pid_t ThisThread() { return static_cast<pid_t>(::syscall(SYS_gettid)); }

void OnSignal(int) {
  const int error = errno;
  Slots* const all = asked;
  const pid_t self = ThisThread();
  for (size_t i = 0; all != nullptr && i < all->size; ++i) {
    Slot& slot = all->slots[i];
    if (slot.thread != self) continue;
    slot.depth = ::backtrace(slot.frames, kFrames);
    slot.written = true;
    ::sem_post(&all->answers);
  }
  errno = error;
}

std::vector<pid_t> OtherThreads() {
  std::vector<pid_t> threads;
  DIR* directory = ::opendir("/proc/self/task");
  if (directory == nullptr) return threads;
  const pid_t self = ThisThread();
  while (const dirent* entry = ::readdir(directory)) {
    const pid_t thread = std::atoi(entry->d_name);
    if (thread > 0 && thread != self) threads.push_back(thread);
  }
  ::closedir(directory);
  return threads;
}

std::string NameOf(pid_t thread) {
  std::ifstream file(absl::StrCat("/proc/self/task/", thread, "/comm"));
  std::string name;
  std::getline(file, name);
  return name;
}

std::string Describe(void* address, bool with_name) {
  // The address is that of the return: the call may be the last thing of its function.
  char name[512] = "";
  const bool named =
      with_name && absl::Symbolize(static_cast<char*>(address) - 1, name, sizeof(name));
  Dl_info info{};
  const bool found = ::dladdr(address, &info) != 0 && info.dli_fname != nullptr;
  const std::string file = found ? info.dli_fname : "?";
  return absl::StrCat(named ? name : "?", " in ", file.substr(file.rfind('/') + 1), "+0x",
                      absl::Hex(found ? static_cast<char*>(address) -
                                            static_cast<char*>(info.dli_fbase)
                                      : reinterpret_cast<intptr_t>(address)));
}

}  // namespace

std::string ThreadStacks(absl::Duration max) {
  const absl::Time end = absl::Now() + max;
  const int number = SIGRTMIN + 7;
  void* first[1];
  (void)::backtrace(first, 1);  // loads what it needs, which a handler must not do
  struct sigaction action {};
  action.sa_handler = &OnSignal;
  action.sa_flags = SA_RESTART;
  if (::sigaction(number, &action, nullptr) != 0) return "";

  const std::vector<pid_t> threads = OtherThreads();
  // Stays for ever: a thread may answer late.
  auto* const all = new Slots(threads.size());
  for (size_t i = 0; i < threads.size(); ++i) all->slots[i].thread = threads[i];
  asked = all;
  for (const pid_t thread : threads) (void)::syscall(SYS_tgkill, ::getpid(), thread, number);
  const timespec last = absl::ToTimespec(absl::Now() + kAnswerMax);
  size_t answered = 0;
  while (answered < threads.size()) {
    if (::sem_timedwait(&all->answers, &last) == 0) {
      ++answered;
    } else if (errno != EINTR) {
      break;
    }
  }

  std::map<std::vector<void*>, std::vector<std::string>> stacks;
  for (size_t i = 0; i < threads.size(); ++i) {
    const Slot& slot = all->slots[i];
    if (!slot.written) continue;
    std::vector<void*> frames(slot.frames + std::min(kOwnFrames, slot.depth),
                              slot.frames + slot.depth);
    stacks[std::move(frames)].push_back(absl::StrCat(threads[i], " ", NameOf(threads[i])));
  }
  std::string text = absl::StrCat(answered, " of ", threads.size(), " threads told their stack\n");
  std::map<void*, std::string> names;
  for (const auto& [frames, who] : stacks) {
    absl::StrAppend(&text, "threads ", absl::StrJoin(who, ", "), ":\n");
    for (void* frame : frames) {
      std::string& name = names[frame];
      if (name.empty()) name = Describe(frame, absl::Now() < end);
      absl::StrAppend(&text, "    ", name, "\n");
    }
  }
  return text;
}

}  // namespace causeway
