// A relay as a program: prints "port N", takes lines "gone TOKEN GROUP" and "stats", ends with
// stdin.
#include <iostream>
#include <sstream>
#include <string>

#include "causeway/callbacks/relay.h"

int main() {
  auto relay = causeway::callbacks::Relay::Start({.release_grace = absl::ZeroDuration()});
  if (!relay.ok()) {
    std::cerr << relay.status().message() << std::endl;
    return 1;
  }
  std::cout << "port " << (*relay)->port() << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string verb, token;
    uint64_t group = 0;
    if (words >> verb >> token >> group && verb == "gone") (*relay)->ProgramGone(token, group);
    const causeway::callbacks::RouterStats stats = (*relay)->GetStats();
    std::cout << "clients " << stats.clients << " workers " << stats.workers << " pending "
              << stats.pending_calls << " calls " << stats.calls << " released "
              << stats.released_groups << std::endl;
  }
  return 0;
}
