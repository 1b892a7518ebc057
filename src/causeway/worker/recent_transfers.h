// Which transfers ended lately: one whose confirmation was lost comes again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "causeway/base/strong_id.h"

namespace causeway::worker {

// Ids of one sender come nearly in order, so one entry of the table stands for 64 of them.
// Thread safety: none.
class RecentTransfers {
 public:
  // The last `kept` are known, and up to as many before them.
  explicit RecentTransfers(size_t kept) : kept_(kept) {}
  RecentTransfers(const RecentTransfers&) = delete;
  RecentTransfers& operator=(const RecentTransfers&) = delete;
  bool Contains(TransferId id) const { return Holds(latest_, id) || Holds(before_, id); }
  // False when it is there.
  bool Add(TransferId id) {
    if (word_ == nullptr || Key(id) != key_) {
      key_ = Key(id);
      const auto it = before_.find(key_);
      before_word_ = it == before_.end() ? 0 : it->second;
      word_ = &latest_[key_];
    }
    if (((*word_ | before_word_) & Bit(id)) != 0) return false;
    *word_ |= Bit(id);
    if (++count_ == kept_) {
      before_ = std::exchange(latest_, {});
      count_ = 0;
      word_ = nullptr;
    }
    return true;
  }
  void Clear() {
    latest_.clear();
    before_.clear();
    count_ = 0;
    word_ = nullptr;
  }

 private:
  using Words = absl::flat_hash_map<uint64_t, uint64_t>;
  static uint64_t Key(TransferId id) { return id.value() / 64; }
  static uint64_t Bit(TransferId id) { return uint64_t{1} << (id.value() % 64); }
  static bool Holds(const Words& words, TransferId id) {
    const auto it = words.find(Key(id));
    return it != words.end() && (it->second & Bit(id)) != 0;
  }

  const size_t kept_;
  size_t count_ = 0;  // in latest_
  Words latest_, before_;
  // The entries of the id that was added last.
  uint64_t key_ = 0, before_word_ = 0;
  uint64_t* word_ = nullptr;  // in latest_; null: none
};

}  // namespace causeway::worker
