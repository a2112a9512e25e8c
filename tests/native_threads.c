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
enum { HIDDEN = 128, INNER = 96, HEADS = 4, KV_HEADS = 2, SIZE = 48, LAYERS = 3, WORDS = 64 };
enum { ROTATED = 24, EXPERTS = 6 };
enum { QKV = (HEADS + 2 * KV_HEADS) * SIZE, STATES = BLOCK * BLOCKS * KV_HEADS * SIZE };

int omp_get_num_threads(void) {
    return 1;
}

int omp_get_thread_num(void) {
    return 0;
}

/* Under AddressSanitizer a piece that is waited for is done twice at once. One who comes late reads
 * what is being written, and nothing comes of it: ThreadSanitizer cannot know that. */
#ifdef __SANITIZE_THREAD__
#define WAITS FOR_EVER
#else
#define WAITS 0
#endif

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

static float *floats(int64_t count) {
    const bf16 *from = numbers(count);
    float *made = aligned(count * 4);
    for (int64_t i = 0; i < count; i++) {
        const uint32_t bits = (uint32_t)from[i] << 16;
        memcpy(made + i, &bits, 4);
    }
    return made;
}

/* Of the first `columns` of a product; random bytes are codes, too. */
static Matrix part(int columns, int depth, int bits, int group) {
    Matrix made = {.panels = columns / PANEL, .bits = bits};
    const int64_t count = (int64_t)columns * depth, groups = bits < 16 ? count / group : 0;
    made.low = numbers(bits == 16 ? count : count * low_bits(bits) / 16);
    if (bits == 16) return made;
    if (bits > low_bits(bits)) made.high = numbers(count * (bits - low_bits(bits)) / 16);
    made.zero = 1 << (bits - 1);
    made.group = group;
    made.is_whole = 1;
    made.scale_kind = BFLOAT16;
    made.scales = numbers(groups);
    if (bits % 2 == 0) made.minimums = numbers(groups);
    return made;
}

static const Matrix *matrix(int columns, int depth, int bits, int group) {
    Matrix *made = aligned(sizeof(Matrix));
    *made = part(columns, depth, bits, group);
    return made;
}

/* One of two formats, whose inputs lie in another order. */
static const Matrix *mixed_matrix(int columns, int depth) {
    Matrix *made = aligned(2 * sizeof(Matrix));
    made[0] = part(PANEL, depth, 4, 32);
    made[1] = part(columns - PANEL, depth, 6, 16);
    int32_t *order = aligned(depth * 4);
    for (int i = 0; i < depth; i++) order[i] = depth - 1 - i;
    made[0].order = order;
    return made;
}

static Norm norm(int kind, int size) {
    return (Norm){.kind = kind, .eps = 1e-5f, .weight = floats(size), .bias = floats(size)};
}

static Model a_model(void) {
    Model model = {.hidden = HIDDEN,
                   .layers = LAYERS,
                   .vocabulary = WORDS,
                   .block_size = BLOCK,
                   .threads = 1,
                   .embedding_multiplier = 2,
                   .logit_multiplier = 3,
                   .logit_cap = 5};
    model.places = numbers(TOKENS * HIDDEN);
    model.embedding_norm = norm(LAYER_NORM, HIDDEN);
    model.norm = norm(RMS_ROUNDED, HIDDEN);
    model.head = model.embedding_codes = matrix(WORDS, HIDDEN, 5, 32);
    model.head_bias = numbers(WORDS);
    return model;
}

static Mlp an_mlp(int inner, int is_gated, int bits) {
    const int columns = inner * (1 + is_gated);
    return (Mlp){.inner = inner,
                 .is_gated = is_gated,
                 .activation = is_gated ? SILU : GELU,
                 .into = matrix(columns, HIDDEN, bits, 64),
                 .into_bias = numbers(columns),
                 .down = matrix(HIDDEN, inner, bits, inner),
                 .down_bias = numbers(HIDDEN)};
}

/* Heads of a size that fills half a tile, in part rotated. */
static Layer a_layer(void) {
    return (Layer){.heads = HEADS,
                   .kv_heads = KV_HEADS,
                   .head_dim = SIZE,
                   .rotated = ROTATED,
                   .window = 8,
                   .scale = 0.125f,
                   .clip = 4,
                   .score_cap = 6,
                   .multiplier = 0.5f,
                   .slopes = floats(HEADS),
                   .cosines = numbers(TOKENS * ROTATED),
                   .sines = numbers(TOKENS * ROTATED),
                   .before_attention = norm(RMS, HIDDEN),
                   .before_mlp = norm(LAYER_NORM, HIDDEN),
                   .query_norm = norm(RMS, HEADS * SIZE),
                   .key_norm = norm(RMS, KV_HEADS * SIZE),
                   .qkv = mixed_matrix(QKV, HIDDEN),
                   .qkv_bias = numbers(QKV),
                   .output = matrix(HIDDEN, HEADS * SIZE, 16, 0),
                   .output_bias = numbers(HIDDEN),
                   .keys = aligned(STATES * 2),
                   .values = aligned(STATES * 2)};
}

/* One whose norms stand on both sides, one whose MLP is beside attention, and one of experts. */
static void fill(Layer *layers) {
    for (int i = 0; i < LAYERS; i++) layers[i] = a_layer();
    Mlp *mlps = aligned((2 + EXPERTS + 1) * sizeof(Mlp));
    layers[0].mlps = mlps, layers[1].mlps = mlps + 1, layers[2].mlps = mlps + 2;
    mlps[0] = an_mlp(INNER, 1, 16), mlps[1] = an_mlp(INNER, 0, 8);
    for (int i = 2; i <= 2 + EXPERTS; i++) mlps[i] = an_mlp(INNER, 1, i % 2 ? 3 : 2);
    layers[0].after_attention = layers[0].after_mlp = norm(RMS_ROUNDED, HIDDEN);
    layers[1].is_parallel = layers[2].joins_heads = 1;
    layers[2].after_mlp = norm(RMS, HIDDEN);
    layers[2].router = (Router){.count = EXPERTS,
                                .active = 2,
                                .is_sigmoid = 1,
                                .is_normalised = 1,
                                .groups = 3,
                                .active_groups = 2,
                                .telling = 2,
                                .multiplier = 2,
                                .weight = numbers(PANEL * HIDDEN),
                                .correction = floats(EXPERTS),
                                .shared = numbers(HIDDEN),
                                .has_shared = 1};
}

/* One sequence of 38 tokens and one of 2, whose blocks lie scattered, in memory of their own: a
 * step beyond the end of any of them is found. */
static Step a_step(const Model *model, const Layer *layers) {
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
    step.scratch = aligned(scratch_bytes(model, layers, TOKENS, SAMPLES));
    return step;
}

typedef struct {
    const Model *model;
    const Layer *layers;
    const Step *step;
    Team *team;
    int thread;
} Walker;

static void *run(void *argument) {
    const Walker *part = argument;
    compute(part->model, part->layers, part->step, part->thread, part->team);
    return NULL;
}

/* By the threads from `first` on, of THREADS: the others have no core. */
static void decode_by(int first, Model *model, const Layer *layers, const Step *step) {
    pthread_t started[THREADS];
    Walker parts[THREADS];
    Seat seats[THREADS] = {0};
    Team team = {.threads = THREADS, .patience = WAITS, .seats = seats};
    model->threads = THREADS;
    for (int i = first; i < THREADS; i++) {
        parts[i] = (Walker){model, layers, step, &team, i};
        if (pthread_create(&started[i], NULL, run, &parts[i])) abort();
    }
    for (int i = first; i < THREADS; i++) pthread_join(started[i], NULL);
}

static int is_same(const float *alone, const float *found, int threads) {
    for (int i = 0; i < SAMPLES * WORDS; i++)
        if (!(alone[i] == found[i] && alone[i] - alone[i] == 0)) {
            printf("logit %d: %g by one thread, %g by %d\n", i, alone[i], found[i], threads);
            return 0;
        }
    return 1;
}

int main(void) {
    Model model = a_model();
    Layer layers[LAYERS];
    fill(layers);
    model.threads = THREADS; /* each has memory of its own */
    Step step = a_step(&model, layers);
    float alone[SAMPLES * WORDS];
    model.threads = 1;
    decode(&model, layers, &step);
    memcpy(alone, step.logits, sizeof alone);
    for (int first = 0; first < THREADS; first++) {
        memset(step.logits, 0, sizeof alone);
        decode_by(first, &model, layers, &step);
        if (!is_same(alone, step.logits, THREADS - first)) return 2;
    }
    printf("the same %d logits\n", SAMPLES * WORDS);
    return 0;
}
