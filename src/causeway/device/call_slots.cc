// The walk through a library's relocations for calls.
#include "causeway/device/call_slots.h"

#include <elf.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

#include "absl/strings/match.h"

namespace causeway::device {
namespace {

// Slots of calls through a stub, and of those that read the slot themselves.
#if defined(__aarch64__)
constexpr uint32_t kStubSlot = R_AARCH64_JUMP_SLOT, kSlot = R_AARCH64_GLOB_DAT;
#else
constexpr uint32_t kStubSlot = R_X86_64_JUMP_SLOT, kSlot = R_X86_64_GLOB_DAT;
#endif

struct Search {
  absl::string_view library, function;
  void* replacement;
  bool found = false;
};

bool IsIt(absl::string_view path, absl::string_view library) {
  if (path.empty() || library.empty()) return path == library;
  return absl::EndsWith(path, library) &&
         (path.size() == library.size() || path[path.size() - library.size() - 1] == '/');
}

// Libraries that are bound at once have their slots in memory that is read-only afterwards.
void Write(void** slot, void* value, bool read_only) {
  const uintptr_t page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  void* start = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(slot) & ~(page - 1));
  if (read_only && ::mprotect(start, page, PROT_READ | PROT_WRITE) != 0) return;
  std::atomic_ref<void*>(*slot).store(value, std::memory_order_release);
  if (read_only) (void)::mprotect(start, page, PROT_READ);
}

struct Library {
  uintptr_t base = 0;
  uintptr_t read_only = 0, read_only_end = 0;
  const ElfW(Sym)* symbols = nullptr;
  const char* names = nullptr;
};

void Replace(const Library& library, uintptr_t relocations, size_t bytes, Search& search) {
  const auto* all = reinterpret_cast<const ElfW(Rela)*>(relocations);
  for (size_t i = 0; i < bytes / sizeof(ElfW(Rela)); ++i) {
    const auto kind = static_cast<uint32_t>(ELF64_R_TYPE(all[i].r_info));
    if (kind != kStubSlot && kind != kSlot) continue;
    if (library.names + library.symbols[ELF64_R_SYM(all[i].r_info)].st_name != search.function) {
      continue;
    }
    const uintptr_t at = library.base + all[i].r_offset;
    Write(reinterpret_cast<void**>(at), search.replacement,
          at >= library.read_only && at < library.read_only_end);
    search.found = true;
  }
}

int Visit(dl_phdr_info* info, size_t, void* context) {
  Search& search = *static_cast<Search*>(context);
  if (!IsIt(info->dlpi_name, search.library)) return 0;
  Library library{.base = info->dlpi_addr};
  const ElfW(Dyn)* dynamic = nullptr;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = info->dlpi_phdr[i];
    const uintptr_t at = info->dlpi_addr + header.p_vaddr;
    if (header.p_type == PT_DYNAMIC) dynamic = reinterpret_cast<const ElfW(Dyn)*>(at);
    if (header.p_type == PT_GNU_RELRO) {
      library.read_only = at;
      library.read_only_end = at + header.p_memsz;
    }
  }
  if (dynamic == nullptr) return 0;
  uintptr_t stubs = 0, others = 0;
  size_t stub_bytes = 0, other_bytes = 0;
  for (; dynamic->d_tag != DT_NULL; ++dynamic) {
    const auto value = dynamic->d_un.d_ptr;
    if (dynamic->d_tag == DT_SYMTAB) library.symbols = reinterpret_cast<const ElfW(Sym)*>(value);
    if (dynamic->d_tag == DT_STRTAB) library.names = reinterpret_cast<const char*>(value);
    if (dynamic->d_tag == DT_JMPREL) stubs = value;
    if (dynamic->d_tag == DT_PLTRELSZ) stub_bytes = value;
    if (dynamic->d_tag == DT_RELA) others = value;
    if (dynamic->d_tag == DT_RELASZ) other_bytes = value;
  }
  if (library.symbols == nullptr || library.names == nullptr) return 0;
  Replace(library, stubs, stub_bytes, search);
  Replace(library, others, other_bytes, search);
  return 0;
}

}  // namespace

bool ReplaceCalls(absl::string_view library, absl::string_view function, void* replacement) {
  Search search{library, function, replacement};
  (void)::dl_iterate_phdr(&Visit, &search);
  return search.found;
}

}  // namespace causeway::device
