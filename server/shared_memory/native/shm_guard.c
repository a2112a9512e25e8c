// Keeps the process alive when a client shortens shared memory that is mapped here.
//
// Reading a page that the object does not have any more raises SIGBUS, in whatever thread and
// library reads. The handler puts zeros where the object ended, so that the reader goes on: its
// result is of no use, but it is the client's own. Any other SIGBUS does what it would have done.

#define _GNU_SOURCE
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAX_RANGES = 1024 };

typedef struct {
    _Atomic uintptr_t start; // 0: not in use; set last and cleared first
    _Atomic uintptr_t end;
} Range;

static Range ranges[MAX_RANGES];
static struct sigaction before;
static uintptr_t page_bytes;

// Only calls that are allowed in a signal handler: mmap is a plain system call.
static void on_sigbus(int number, siginfo_t *info, void *context) {
    (void)number;
    (void)context;
    uintptr_t address = (uintptr_t)info->si_addr;
    for (int i = 0; i < MAX_RANGES; i++) {
        uintptr_t start = atomic_load(&ranges[i].start);
        uintptr_t end = atomic_load(&ranges[i].end);
        if (start == 0 || address < start || address >= end) continue;
        uintptr_t page = address & ~(page_bytes - 1);
        void *zeros = mmap((void *)page, end - page, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        if (zeros != MAP_FAILED) return;
    }
    sigaction(SIGBUS, &before,
              NULL); // The instruction runs again, and meets the handler before us.
}

// Whether the handler is in place. To be called once.
int guard_install(void) {
    struct sigaction action = {0};
    action.sa_sigaction = on_sigbus;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
    return sigaction(SIGBUS, &action, &before) == 0;
}

// The range's number, or -1 where there is room for no more.
int guard_add(uintptr_t start, uintptr_t size) {
    for (int i = 0; i < MAX_RANGES; i++) {
        uintptr_t free_start = 0;
        if (atomic_load(&ranges[i].start) != 0) continue;
        atomic_store(&ranges[i].end, start + size);
        if (atomic_compare_exchange_strong(&ranges[i].start, &free_start, start)) return i;
    }
    return -1;
}

void guard_remove(int number) {
    if (number >= 0 && number < MAX_RANGES) atomic_store(&ranges[number].start, 0);
}
