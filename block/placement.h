// Placement order: where new clusters go is decided in guest order, however many requests are in flight.
#pragma once

#include <cstdint>
#include <map>
#include <set>

#include "coroutine/annotations.h"

namespace coimg {

class Coroutine;

/// A row of turns. Requests take a ticket in guest order; a format driver waits for the ticket's turn just before it
/// allocates and ends the turn as soon as the place in the file is fixed, before the data is written. So data moves in
/// parallel while the file's layout is the same for any number of workers. Belongs to one AioContext.
class PlacementOrder {
 public:
  class Ticket {
   public:
    Ticket() = default;
    explicit Ticket(PlacementOrder& order) : order_(&order), number_(order.next_number_++) {}
    ~Ticket() { end(); }
    Ticket(Ticket&& other) noexcept : order_(other.order_), number_(other.number_) { other.order_ = nullptr; }
    Ticket& operator=(Ticket&&) = delete;

    /// Sleeps until all earlier tickets have finished.
    void wait_turn() coroutine_fn;
    /// Lets the next one go. May be called before the turn came (nothing to place); idempotent. Does nothing while
    /// kept.
    void finish() coroutine_mixed_fn {
      if (!kept_) end();
    }
    /// For a request in several parts: the drivers' finish() has no effect until the last part.
    void keep(bool more_to_come) { kept_ = more_to_come; }

   private:
    void end() coroutine_mixed_fn;

    PlacementOrder* order_ = nullptr;
    uint64_t number_ = 0;
    bool kept_ = false;
  };

  PlacementOrder() = default;
  ~PlacementOrder();  // asserts that no ticket waits
  PlacementOrder(const PlacementOrder&) = delete;
  PlacementOrder& operator=(const PlacementOrder&) = delete;

 private:
  void finish_number(uint64_t number) coroutine_mixed_fn;

  uint64_t next_number_ = 0;                ///< of the next ticket
  uint64_t turn_ = 0;                       ///< all tickets below have finished
  std::set<uint64_t> finished_early_;       ///< finished before their turn; all above turn_
  std::map<uint64_t, Coroutine*> waiting_;  ///< by ticket number
};

}  // namespace coimg
