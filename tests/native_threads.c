/* A decoder of random numbers, computed by one thread and by three that pthreads started: to run
 * under sanitizers. ThreadSanitizer knows pthreads; OpenMP's own barriers it would call races. So
 * decoder.c is compiled without OpenMP here: decode() is then the one thread that the others are
 * compared with, and compute(), with every barrier that is the kernel's own, is what they run.
 *
 * Exits with 0 if all give the same numbers, with 2 if not, and as the sanitizer says if it finds
 * something. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decoder.c"

enum { THREADS = 3, TOKENS = 40, SEQUENCES = 2, BLOCK = 4, BLOCKS = 16, SAMPLES = 3 };
enum { HIDDEN = 128, INNER = 96, HEADS = 4, KV_HEADS = 2, SIZE = 64, LAYERS = 2, WORDS = 64 };
enum { QKV = (HEADS + 2 * KV_HEADS) * SIZE, STATES = BLOCK * BLOCKS * KV_HEADS * SIZE };

int omp_get_num_threads(void) {
    return 1;
}

int omp_get_thread_num(void) {
    return 0;
}

static void *aligned(int64_t bytes) {
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!memory) abort();
    memset(memory, 0, bytes);
    return memory;
}

/* bfloat16 between -1/4 and 1/4, none of them tiny. */
static bf16 *numbers(int64_t count) {
    static uint32_t state = 7;
    bf16 *made = aligned(count * 2);
    for (int64_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        made[i] = (bf16)((state >> 31 << 15) | (0x3d80 + (state >> 20 & 0xff)));
    }
    return made;
}

static Model a_model(void) {
    Model model = {.hidden = HIDDEN,
                   .inner = INNER,
                   .heads = HEADS,
                   .kv_heads = KV_HEADS,
                   .head_dim = SIZE,
                   .layers = LAYERS,
                   .vocabulary = WORDS,
                   .block_size = BLOCK,
                   .window = 8,
                   .threads = 1,
                   .eps = 1e-5f,
                   .scale = 0.125f};
    model.embedding = numbers(WORDS * HIDDEN);
    model.norm = numbers(HIDDEN);
    model.head = numbers(WORDS * HIDDEN);
    model.cosines = numbers(TOKENS * SIZE);
    model.sines = numbers(TOKENS * SIZE);
    return model;
}

static void fill(Layer *layers) {
    for (int i = 0; i < LAYERS; i++)
        layers[i] = (Layer){.input_norm = numbers(HIDDEN),
                            .qkv = numbers(QKV * HIDDEN),
                            .qkv_bias = numbers(QKV),
                            .query_norm = numbers(SIZE),
                            .key_norm = numbers(SIZE),
                            .output = numbers(HEADS * SIZE * HIDDEN),
                            .post_norm = numbers(HIDDEN),
                            .gate_up = numbers(2 * INNER * HIDDEN),
                            .down = numbers(INNER * HIDDEN),
                            .keys = aligned(STATES * 2),
                            .values = aligned(STATES * 2)};
}

/* One sequence of 38 tokens and one of 2, whose blocks lie scattered, in memory of their own: a
 * step beyond the end of any of them is found. */
static Step a_step(const Model *model) {
    static const int lengths[SEQUENCES] = {TOKENS - 2, 2};
    Step step = {.tokens = TOKENS, .sequences = SEQUENCES, .most_blocks = 10, .samples = SAMPLES};
    int64_t *ids = aligned(TOKENS * 8), *positions = aligned(TOKENS * 8);
    int64_t *slots = aligned(TOKENS * 8), *rows = aligned(SAMPLES * 8);
    int32_t *starts = aligned((SEQUENCES + 1) * 4), *tables = aligned(SEQUENCES * 10 * 4);
    int32_t *ends = aligned(SEQUENCES * 4);
    for (int sequence = 0, token = 0, block = 0; sequence < SEQUENCES; sequence++) {
        int32_t *table = tables + sequence * 10;
        for (int i = 0; i < (lengths[sequence] + BLOCK - 1) / BLOCK; i++, block++)
            table[i] = BLOCKS - 1 - block;
        for (int i = 0; i < lengths[sequence]; i++, token++) {
            ids[token] = (token * 7) % WORDS;
            positions[token] = i;
            slots[token] = table[i / BLOCK] * BLOCK + i % BLOCK;
        }
        ends[sequence] = lengths[sequence];
        starts[sequence + 1] = token;
    }
    rows[0] = 5, rows[1] = TOKENS - 3, rows[2] = TOKENS - 1;
    step.token_ids = ids, step.positions = positions, step.slots = slots, step.sample_rows = rows;
    step.starts = starts, step.lengths = ends, step.tables = tables;
    step.logits = aligned(SAMPLES * WORDS * 4);
    step.scratch = aligned(scratch_bytes(model, TOKENS, SAMPLES));
    return step;
}

typedef struct {
    const Model *model;
    const Layer *layers;
    const Step *step;
    Team *team;
    int thread;
} Part;

static void *run(void *argument) {
    const Part *part = argument;
    compute(part->model, part->layers, part->step, part->thread, part->team);
    return NULL;
}

static void decode_together(Model *model, const Layer *layers, const Step *step) {
    pthread_t started[THREADS];
    Part parts[THREADS];
    Team team = {.threads = THREADS};
    model->threads = THREADS;
    for (int i = 0; i < THREADS; i++) {
        parts[i] = (Part){model, layers, step, &team, i};
        if (pthread_create(&started[i], NULL, run, &parts[i])) abort();
    }
    for (int i = 0; i < THREADS; i++) pthread_join(started[i], NULL);
}

int main(void) {
    Model model = a_model();
    Layer layers[LAYERS];
    fill(layers);
    Step step = a_step(&model);
    float alone[SAMPLES * WORDS];
    decode(&model, layers, &step);
    memcpy(alone, step.logits, sizeof alone);
    memset(step.logits, 0, sizeof alone);
    decode_together(&model, layers, &step);
    for (int i = 0; i < SAMPLES * WORDS; i++)
        if (!(alone[i] == step.logits[i] && alone[i] - alone[i] == 0)) {
            printf("logit %d: %g by one thread, %g by three\n", i, alone[i], step.logits[i]);
            return 2;
        }
    printf("the same %d logits\n", SAMPLES * WORDS);
    return 0;
}
