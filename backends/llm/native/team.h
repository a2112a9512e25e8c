/* Threads that walk through a step together, and share its work piece by piece.
 *
 * All of them pass the same phases, in each of which some pieces are there to be done. A thread
 * takes the pieces of its own share first, one after the other, because they are neighbours in
 * memory; then those that others have left. When all are done, it goes on to the next phase.
 *
 * A thread may lose its core at any time, and with it stands the piece that it holds. So whoever
 * has waited long does that piece, too: of those who compute a piece the first keeps its result,
 * and the other drops his. Nobody is waited for, then: one who comes back finds his phase over, and
 * passes through all that went by without him. What he still reads until then may be written anew
 * meanwhile; it has no part in anything that is kept.
 *
 *   take --- compute, into memory of one's own --- may_keep --- write --- kept --- take
 */
#pragma once
#include <immintrin.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

/* One thread's. Each word has the number of a phase in its upper half, and is of no phase before
 * that; `next` and `held` are written by all, `done` by the thread. */
typedef struct {
    _Alignas(64) atomic_ullong next; /* how many pieces of its share were taken */
    atomic_ullong held;              /* the piece under way, counted from 1; 0: it was kept */
    _Alignas(64) atomic_ullong done; /* how many pieces it has kept */
} Seat;

typedef struct {
    int threads;
    int64_t patience; /* cycles, before what another holds is done twice; FOR_EVER: never is */
    Seat *seats;
} Team;

static const int64_t FOR_EVER = INT64_MAX / 2;
/* Some 50 us: more than a piece takes, less than a core is lost for. */
static const int64_t PATIENCE = 120000;
static const uint64_t COPIED = 1ull << 31; /* a piece held that another does, too */
static const uint64_t NUMBER = (1ull << 31) - 1;

/* A phase, as one thread sees it. */
typedef struct {
    Team *team;
    uint64_t phase; /* in the upper half of a word */
    int thread, pieces, is_repeatable;
    int turn;      /* the threads whose shares are all taken: its own, the next one's ... */
    int holder;    /* whose seat says who keeps the piece */
    uint32_t kept; /* by this thread */
    int64_t began; /* the last piece, in cycles */
    int piece;     /* that was taken */
} Work;

static inline void share(int total, int thread, int threads, int *from, int *to) {
    *from = (int)((int64_t)total * thread / threads);
    *to = (int)((int64_t)total * (thread + 1) / threads);
}

/* Of a phase behind all before it. Repeatable pieces write nothing before `may_keep`. */
static inline Work begin(Team *team, int thread, uint32_t *phase, int pieces, int is_repeatable) {
    return (Work){.team = team,
                  .phase = (uint64_t)++*phase << 32,
                  .thread = thread,
                  .pieces = pieces,
                  .is_repeatable = is_repeatable};
}

static inline void hold(Work *work, int piece) {
    Seat *own = work->team->seats + work->thread;
    work->piece = piece;
    work->holder = work->thread;
    work->began = (int64_t)__rdtsc();
    if (work->is_repeatable)
        atomic_store_explicit(&own->held, work->phase | (uint64_t)(piece + 1),
                              memory_order_release);
}

/* A piece that nobody has taken yet. */
static int take_next(Work *work) {
    const int threads = work->team->threads;
    for (; work->turn < threads; work->turn++) {
        const int of = (work->thread + work->turn) % threads;
        atomic_ullong *next = &work->team->seats[of].next;
        int from, to;
        share(work->pieces, of, threads, &from, &to);
        unsigned long long seen = atomic_load_explicit(next, memory_order_relaxed);
        while (seen >> 32 <= work->phase >> 32) {
            const uint64_t before = seen < work->phase ? work->phase : seen;
            const int piece = from + (int)(before & NUMBER);
            if (piece >= to) break;
            if (atomic_compare_exchange_weak_explicit(next, &seen, before + 1, memory_order_relaxed,
                                                      memory_order_relaxed)) {
                hold(work, piece);
                return 1;
            }
        }
    }
    return 0;
}

/* Whether some thread has done something behind this phase. What a later one changes, it has not
 * changed yet if not. */
static int has_passed(const Work *work) {
    for (int thread = 0; thread < work->team->threads; thread++)
        if (atomic_load_explicit(&work->team->seats[thread].done, memory_order_acquire) >> 32 >
            work->phase >> 32)
            return 1;
    return 0;
}

static int is_over(const Work *work) {
    uint64_t done = 0;
    for (int thread = 0; thread < work->team->threads; thread++) {
        const uint64_t word =
            atomic_load_explicit(&work->team->seats[thread].done, memory_order_acquire);
        if (word >> 32 > work->phase >> 32) return 1;
        if (word >> 32 == work->phase >> 32) done += word & NUMBER;
    }
    return done == (uint64_t)work->pieces;
}

/* A piece that another holds, and nobody else does. */
static int take_held(Work *work) {
    for (int i = 1; i < work->team->threads; i++) {
        const int of = (work->thread + i) % work->team->threads;
        atomic_ullong *held = &work->team->seats[of].held;
        unsigned long long seen = atomic_load_explicit(held, memory_order_relaxed);
        if (seen >> 32 != work->phase >> 32 || !(seen & NUMBER) || seen & COPIED) continue;
        if (!atomic_compare_exchange_strong(held, &seen, seen | COPIED)) continue;
        work->piece = (int)(seen & NUMBER) - 1;
        work->holder = of;
        return 1;
    }
    return 0;
}

/* Until the phase is over, or a piece has been waited for too long. */
static int wait_or_repeat(Work *work) {
    const int64_t since = (int64_t)__rdtsc();
    const int64_t last = work->began ? since - work->began : 0;
    const int64_t most = work->team->patience + 2 * last;
    while (!is_over(work)) {
        _mm_pause();
        if ((int64_t)__rdtsc() - since < most) continue;
        if (work->is_repeatable && work->team->patience < FOR_EVER && take_held(work)) return 1;
        /* Who holds what we wait for may want this core. */
        nanosleep(&(struct timespec){.tv_nsec = 20000}, 0);
    }
    return 0;
}

/* Whether there is a piece to do: `work->piece`. If not, the phase is over. */
static inline int take(Work *work) {
    return take_next(work) || wait_or_repeat(work);
}

/* Whether what was computed is to be written, by this thread and no other. */
static inline int may_keep(Work *work) {
    if (!work->is_repeatable) return 1;
    atomic_ullong *held = &work->team->seats[work->holder].held;
    unsigned long long wanted = work->phase | (uint64_t)(work->piece + 1);
    if (work->holder == work->thread)
        return (atomic_exchange(held, work->phase) & ~COPIED) == wanted;
    wanted |= COPIED;
    return atomic_compare_exchange_strong(held, &wanted, work->phase);
}

static inline void kept(Work *work) {
    atomic_store_explicit(&work->team->seats[work->thread].done, work->phase | ++work->kept,
                          memory_order_release);
}
