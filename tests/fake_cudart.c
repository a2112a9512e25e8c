/* libcudart for tests: memory is host memory, everything is done at once and noted down.

   FAKE_CUDA_DEVICES: how many GPUs there are; FAKE_CUDA_ERROR=function:code lets one fail. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { char reserved[64]; } ipc_handle;
static char notes[1 << 16];
static int current, live_streams, live_events;
static size_t live_bytes;

#define TOTAL ((size_t)1 << 30)

static int begin(const char *name) {
    const char *wish = getenv("FAKE_CUDA_ERROR");
    size_t length = strlen(name);
    if (strlen(notes) + length + 2 < sizeof notes) { strcat(notes, name); strcat(notes, " "); }
    if (wish && !strncmp(wish, name, length) && wish[length] == ':') return atoi(wish + length + 1);
    return 0;
}
#define BEGIN { int failed = begin(__func__); if (failed) return failed; }

const char *fake_notes(void) { return notes; }
void fake_forget(void) { notes[0] = 0; }
size_t fake_live_bytes(void) { return live_bytes; }
int fake_live_handles(void) { return live_streams + live_events; }

const char *cudaGetErrorName(int code) {
    return code == 2 ? "cudaErrorMemoryAllocation" : code == 700 ? "cudaErrorIllegalAddress"
           : code == 35 ? "cudaErrorInsufficientDriver" : "cudaErrorUnknown";
}
int cudaGetLastError(void) { return 0; }
int cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
int cudaGetDeviceCount(int *count) {
    BEGIN
    const char *given = getenv("FAKE_CUDA_DEVICES");
    *count = given ? atoi(given) : 1;
    return *count ? 0 : 100;
}
int cudaSetDevice(int device) { BEGIN current = device; return 0; }
int cudaGetDevice(int *device) { *device = current; return 0; }
int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    BEGIN (void)device;
    *value = attribute == 75 ? 9 : 0;
    return 0;
}
int cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    BEGIN *total = TOTAL; *free_bytes = TOTAL - live_bytes; return 0;
}
int cudaStreamCreateWithFlags(void **stream, unsigned flags) {
    BEGIN if (flags != 1) return 1;
    *stream = malloc(1); live_streams++; return 0;
}
int cudaStreamDestroy(void *stream) { BEGIN free(stream); live_streams--; return 0; }
int cudaStreamWaitEvent(void *stream, void *event, unsigned flags) {
    BEGIN (void)stream; return !event || flags;
}
int cudaStreamBeginCapture(void *stream, int mode) { BEGIN return !stream || mode != 1; }
int cudaStreamEndCapture(void *stream, void **graph) {
    BEGIN (void)stream; *graph = malloc(1); return 0;
}
int cudaGraphInstantiateWithFlags(void **made, void *graph, unsigned long long flags) {
    BEGIN *made = malloc(1); return !graph || flags != 0;
}
int cudaGraphLaunch(void *graph, void *stream) { BEGIN return !graph || !stream; }
int cudaGraphDestroy(void *graph) { BEGIN free(graph); return 0; }
int cudaGraphExecDestroy(void *graph) { BEGIN free(graph); return 0; }
int cudaEventCreateWithFlags(void **event, unsigned flags) {
    BEGIN if (flags != 2 && flags != 3) return 1;
    *event = malloc(1); live_events++; return 0;
}
int cudaEventDestroy(void *event) { BEGIN free(event); live_events--; return 0; }
int cudaEventRecord(void *event, void *stream) { BEGIN return !event || !stream; }
int cudaEventSynchronize(void *event) { BEGIN return !event; }
int cudaEventQuery(void *event) { BEGIN return !event; }
int cudaMallocAsync(void **memory, size_t size, void *stream) {
    BEGIN if (!stream) return 1;
    if (live_bytes + size > TOTAL) return 2;
    size_t *block = malloc(size + 64);
    *block = size; live_bytes += size;
    *memory = (char *)block + 64;
    return 0;
}
int cudaFreeAsync(void *memory, void *stream) {
    BEGIN if (!stream) return 1;
    size_t *block = (size_t *)((char *)memory - 64);
    live_bytes -= *block; free(block);
    return 0;
}
int cudaMemcpyAsync(void *target, const void *source, size_t size, int kind, void *stream) {
    BEGIN if (kind != 4 || !stream) return 1;
    memcpy(target, source, size); return 0;
}
int cudaHostAlloc(void **memory, size_t size, unsigned flags) {
    BEGIN (void)flags; *memory = calloc(1, size); return 0;
}
static char shared[4096];
int cudaIpcOpenMemHandle(void **memory, ipc_handle handle, unsigned flags) {
    BEGIN if (flags != 1 || memcmp(handle.reserved, "CUDA", 4)) return 1;
    *memory = shared; return 0;
}
int cudaIpcCloseMemHandle(void *memory) { BEGIN return memory != shared; }
int cuMemGetAddressRange_v2(void **base, size_t *size, void *address) {
    BEGIN (void)address;
    *base = shared; *size = sizeof shared; return 0;
}
int cudaDeviceGetDefaultMemPool(void **pool, int device) {
    BEGIN *pool = shared; return device < 0;
}
int cudaMemPoolSetAttribute(void *pool, int attribute, void *value) {
    BEGIN return pool != shared || attribute != 4 || !*(unsigned long long *)value;
}
