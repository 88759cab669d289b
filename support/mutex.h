// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <condition_variable>
#include <mutex>
#include <shared_mutex>

// clang's thread-safety analysis proves at compile time that guarded members are touched with their
// lock held; other compilers see nothing.
#if defined(__clang__)
#define MKVIRTFS_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define MKVIRTFS_THREAD_ATTRIBUTE(x)
#endif
#define GUARDED_BY(x) MKVIRTFS_THREAD_ATTRIBUTE(guarded_by(x))
#define REQUIRES(...) MKVIRTFS_THREAD_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) MKVIRTFS_THREAD_ATTRIBUTE(locks_excluded(__VA_ARGS__))

namespace mkvirtfs {

/// std::mutex with the annotations that libstdc++ lacks.
class MKVIRTFS_THREAD_ATTRIBUTE(capability("mutex")) Mutex {
 public:
  void lock() MKVIRTFS_THREAD_ATTRIBUTE(acquire_capability()) { mutex_.lock(); }
  void unlock() MKVIRTFS_THREAD_ATTRIBUTE(release_capability()) { mutex_.unlock(); }
  bool try_lock() MKVIRTFS_THREAD_ATTRIBUTE(try_acquire_capability(true)) {
    return mutex_.try_lock();
  }

 private:
  std::mutex mutex_;
};

/// Holds a Mutex for a scope; `wait` gives it up while it sleeps.
class MKVIRTFS_THREAD_ATTRIBUTE(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) MKVIRTFS_THREAD_ATTRIBUTE(acquire_capability(mutex))
      : lock_(mutex) {}
  ~MutexLock() MKVIRTFS_THREAD_ATTRIBUTE(release_capability()) = default;
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

  /// To do something without the lock in between.
  void unlock() MKVIRTFS_THREAD_ATTRIBUTE(release_capability()) { lock_.unlock(); }
  void lock() MKVIRTFS_THREAD_ATTRIBUTE(acquire_capability()) { lock_.lock(); }

  /// Sleeps once; the caller loops on its condition.
  void wait(std::condition_variable_any& condition) { condition.wait(lock_); }
  template <class Clock, class Duration>
  std::cv_status wait_until(std::condition_variable_any& condition,
                            const std::chrono::time_point<Clock, Duration>& deadline) {
    return condition.wait_until(lock_, deadline);
  }

 private:
  std::unique_lock<Mutex> lock_;
};

/// std::shared_mutex with the same annotations.
class MKVIRTFS_THREAD_ATTRIBUTE(capability("shared mutex")) SharedMutex {
 public:
  void lock() MKVIRTFS_THREAD_ATTRIBUTE(acquire_capability()) { mutex_.lock(); }
  void unlock() MKVIRTFS_THREAD_ATTRIBUTE(release_capability()) { mutex_.unlock(); }
  void lock_shared() MKVIRTFS_THREAD_ATTRIBUTE(acquire_shared_capability()) {
    mutex_.lock_shared();
  }
  void unlock_shared() MKVIRTFS_THREAD_ATTRIBUTE(release_shared_capability()) {
    mutex_.unlock_shared();
  }

 private:
  std::shared_mutex mutex_;
};

/// Holds a SharedMutex for a scope, alone.
class MKVIRTFS_THREAD_ATTRIBUTE(scoped_lockable) ExclusiveLock {
 public:
  explicit ExclusiveLock(SharedMutex& mutex) MKVIRTFS_THREAD_ATTRIBUTE(acquire_capability(mutex))
      : mutex_(mutex) {
    mutex_.lock();
  }
  ~ExclusiveLock() MKVIRTFS_THREAD_ATTRIBUTE(release_capability()) { mutex_.unlock(); }
  ExclusiveLock(const ExclusiveLock&) = delete;
  ExclusiveLock& operator=(const ExclusiveLock&) = delete;

 private:
  SharedMutex& mutex_;
};

/// Holds a SharedMutex for a scope, together with others that do.
class MKVIRTFS_THREAD_ATTRIBUTE(scoped_lockable) SharedLock {
 public:
  explicit SharedLock(SharedMutex& mutex)
      MKVIRTFS_THREAD_ATTRIBUTE(acquire_shared_capability(mutex))
      : mutex_(mutex) {
    mutex_.lock_shared();
  }
  ~SharedLock() MKVIRTFS_THREAD_ATTRIBUTE(release_generic_capability()) { mutex_.unlock_shared(); }
  SharedLock(const SharedLock&) = delete;
  SharedLock& operator=(const SharedLock&) = delete;

 private:
  SharedMutex& mutex_;
};

}  // namespace mkvirtfs
