// SPDX-License-Identifier: BSD-3-Clause
#include "net/job_queue.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <condition_variable>
#include <functional>
#include <latch>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace mkvirtfs::net {
namespace {

class Call final : public Task {
 public:
  explicit Call(std::function<void()> call) : call_(std::move(call)) {}
  void run() noexcept override { call_(); }

 private:
  std::function<void()> call_;
};

/// What tasks wait for: an address is enough.
struct Device {};

LaneKey lane_of(const Device& device) { return {&device, ""}; }

std::shared_ptr<Task> call(std::function<void()> call) {
  return std::make_shared<Call>(std::move(call));
}

/// Where tasks wait until the test lets them go.
class Gate {
 public:
  void pass() {
    std::unique_lock lock(mutex_);
    ++arrived_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return is_open_; });
  }
  void open() {
    const std::lock_guard lock(mutex_);
    is_open_ = true;
    changed_.notify_all();
  }
  void wait_for(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return arrived_ >= count; });
  }
  int arrived() {
    const std::lock_guard lock(mutex_);
    return arrived_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int arrived_ = 0;
  bool is_open_ = false;
};

}  // namespace

TEST_CASE("what waits for one device never waits for another", "[job_queue]") {
  const std::vector<Device> devices(20);
  Gate gate;
  std::latch done(1000);
  {
    JobQueue queue(4);
    for (int i = 0; i < 1000; ++i) {
      queue.submit(lane_of(devices[0]), call([&] {
                     gate.pass();
                     done.count_down();
                   }));
    }
    gate.wait_for(4);
    // Each of the others has a thread, however many wait there. Nothing here ends else.
    for (std::size_t i = 1; i < devices.size(); ++i) {
      std::latch passed(3);
      for (int n = 0; n < 3; ++n)
        queue.submit(lane_of(devices[i]), call([&] { passed.count_down(); }));
      passed.wait();
    }
    // Also when all of these wait, too.
    for (std::size_t i = 1; i + 1 < devices.size(); ++i) {
      queue.submit(lane_of(devices[i]), call([&] { gate.pass(); }));
    }
    gate.wait_for(4 + 18);
    std::latch passed(1);
    queue.submit(lane_of(devices.back()), call([&] { passed.count_down(); }));
    passed.wait();
    CHECK(gate.arrived() == 4 + 18);
    gate.open();
    done.wait();
  }
  CHECK(gate.arrived() == 1000 + 18);
}

TEST_CASE("the tasks of a device begin in the order in which they came", "[job_queue]") {
  const Device device;
  const Device other;
  std::vector<int> order;
  std::vector<int> others;
  {
    JobQueue queue(1);
    Gate gate;
    queue.submit(lane_of(device), call([&] { gate.pass(); }));
    gate.wait_for(1);
    for (int i = 0; i < 100; ++i)
      queue.submit(lane_of(device), call([&, i] { order.push_back(i); }));
    for (int i = 0; i < 100; ++i)
      queue.submit(lane_of(other), call([&, i] { others.push_back(i); }));
    gate.open();
  }
  REQUIRE(order.size() == 100);
  REQUIRE(others.size() == 100);
  for (int i = 0; i < 100; ++i) {
    CHECK(order[static_cast<std::size_t>(i)] == i);
    CHECK(others[static_cast<std::size_t>(i)] == i);
  }
}

TEST_CASE("a queue ends when all that was given to it is done", "[job_queue]") {
  const Device device;
  std::atomic<int> done = 0;
  {
    JobQueue queue(3);
    for (int i = 0; i < 500; ++i) {
      queue.submit(lane_of(device), call([&] {
                     // Tasks may bring others.
                     queue.submit(lane_of(device), call([&] { ++done; }));
                   }));
    }
  }
  CHECK(done == 500);
}

}  // namespace mkvirtfs::net
