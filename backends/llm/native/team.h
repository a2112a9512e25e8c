/* Threads that walk through a step together. */
#pragma once
#include <immintrin.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

typedef struct {
    atomic_int arrived, round;
    atomic_int next_item;
    int threads;
} Team;

static void meet(Team *team) {
    int round = atomic_load_explicit(&team->round, memory_order_relaxed);
    if (atomic_fetch_add(&team->arrived, 1) == team->threads - 1) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team->next_item, 0, memory_order_relaxed);
        atomic_store_explicit(&team->round, round + 1, memory_order_release);
        return;
    }
    /* Another process may have the core that we wait for: then spinning would keep it away. */
    for (int spins = 0; atomic_load_explicit(&team->round, memory_order_acquire) == round; spins++)
        if (spins < 4000)
            _mm_pause();
        else
            sched_yield();
}

static inline void share(int total, int thread, int threads, int *from, int *to) {
    *from = (int)((int64_t)total * thread / threads);
    *to = (int)((int64_t)total * (thread + 1) / threads);
}
