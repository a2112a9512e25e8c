/* One step of a Llama-shaped decoder over the paged cache, in bfloat16, on x86 processors with
 * AVX512-BF16 and, where there is one, AMX. What it must give is what models/llama.py and
 * attention/torch_reference.py give; backends/llm/native/decoder.py describes the arguments.
 *
 * All threads walk through the whole step together and meet at a barrier wherever one needs what
 * another has made. Sums are float32; the residual stream stays float32 throughout.
 */
#include <immintrin.h>
#include <math.h>
#include <omp.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef uint16_t bf16;

typedef struct {
    int32_t hidden, inner, heads, kv_heads, head_dim, layers, vocabulary, block_size, window;
    int32_t has_amx, threads;
    float eps, scale;
    const bf16 *embedding, *norm, *head; /* head is packed */
    const bf16 *cosines, *sines;         /* [positions, head_dim] */
} Model;

/* Matrices are packed, see pack() in decoder.py. Absent parts are null. */
typedef struct {
    const bf16 *input_norm, *qkv, *qkv_bias, *query_norm, *key_norm;
    const bf16 *output, *output_bias, *post_norm, *gate_up, *down;
    bf16 *keys, *values; /* [slots, kv_heads, head_dim] */
} Layer;

typedef struct {
    int32_t tokens, sequences, most_blocks, samples;
    const int64_t *token_ids, *positions, *slots;  /* [tokens] */
    const int32_t *starts, *lengths, *tables;      /* as in StepInputs */
    const int64_t *sample_rows;
    float *logits; /* [samples, vocabulary] */
    char *scratch; /* scratch_bytes(model, tokens, samples), 64-byte aligned */
} Step;

/* What a step keeps between its phases; rows are padded to whole tiles. */
typedef struct {
    float *residual, *qkv;
    bf16 *normed, *query, *attended, *activated;
} Buffers;

enum { TILE = 16, PANEL = 32, TILE_BYTES = 1024, ROWS = 32, KEYS = 64, MAX_HEAD = 128, MAX_HEADS = 64, MAX_GROUP = 16 };

static inline float to_float(bf16 value) {
    union { uint32_t bits; float number; } both = {(uint32_t)value << 16};
    return both.number;
}

static inline __m512 load_bf16(const bf16 *from) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline void store_bf16(bf16 *to, __m512 values) {
    _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh(values));
}

/* exp by 2^n * 2^f: Cody and Waite's reduction and a polynomial; 2e-7 relative. */
static inline __m512 exponential(__m512 x) {
    x = _mm512_max_ps(_mm512_min_ps(x, _mm512_set1_ps(88.0f)), _mm512_set1_ps(-87.0f));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 8);
    __m512 f = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    f = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), f);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(p, _mm512_mul_ps(f, f), _mm512_add_ps(f, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(p, n);
}

/* 1 / x by one of Newton's steps: 1e-7 relative, a quarter of a division's time. */
static inline __m512 reciprocal(__m512 x) {
    __m512 near = _mm512_rcp14_ps(x);
    return _mm512_mul_ps(near, _mm512_fnmadd_ps(x, near, _mm512_set1_ps(2.0f)));
}

/* ---- threads ---------------------------------------------------------------------------- */

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
        if (spins < 4000) _mm_pause(); else sched_yield();
}

static inline void share(int total, int thread, int threads, int *from, int *to) {
    *from = (int)((int64_t)total * thread / threads);
    *to = (int)((int64_t)total * (thread + 1) / threads);
}

/* ---- tiles ------------------------------------------------------------------------------ */

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} __attribute__((aligned(64))) TileConfig;

/* Tiles 0 to 3 sum, 4 and 5 hold rows of the left matrix, 6 and 7 of the packed right one. */
static void configure_tiles(int rows) {
    TileConfig config;
    memset(&config, 0, sizeof config);
    config.palette = 1;
    for (int tile = 0; tile < 8; tile++) {
        config.bytes[tile] = 64;
        config.rows[tile] = (uint8_t)(tile < 6 ? rows : TILE);
    }
    _tile_loadconfig(&config);
}

int32_t allow_tiles(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0;
}

/* Weights come from memory once, in order; the processor's own prefetcher stops at each page. */
static inline void prefetch_panel(const char *right) {
    for (int line = 0; line < 2 * TILE_BYTES; line += 64)
        _mm_prefetch(right + 8 * TILE_BYTES + line, _MM_HINT_T0);
}

/* ---- matrix products: [rows, depth] x packed [depth, 32] -> sums [rows <= 32, 32] --------- */

static inline __attribute__((always_inline)) void multiply_tiles(
    const bf16 *left, int rows, int depth, const bf16 *panel, const int is_first, float *sums) {
    const int stride = depth * 2;
    const char *right = (const char *)panel;
    _tile_zero(0);
    _tile_zero(1);
    if (rows <= TILE) {
        for (int k = 0; k < depth; k += 32, right += 2 * TILE_BYTES) {
            if (is_first) prefetch_panel(right);
            _tile_loadd(4, left + k, stride);
            _tile_loadd(6, right, 64);
            _tile_loadd(7, right + TILE_BYTES, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
        }
    } else {
        const bf16 *below = left + TILE * depth;
        _tile_zero(2);
        _tile_zero(3);
        for (int k = 0; k < depth; k += 32, right += 2 * TILE_BYTES) {
            if (is_first) prefetch_panel(right);
            _tile_loadd(4, left + k, stride);
            _tile_loadd(6, right, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, right + TILE_BYTES, 64);
            _tile_dpbf16ps(1, 4, 7);
            _tile_loadd(5, below + k, stride);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(2, sums + TILE * PANEL, PANEL * 4);
        _tile_stored(3, sums + TILE * PANEL + TILE, PANEL * 4);
    }
    _tile_stored(0, sums, PANEL * 4);
    _tile_stored(1, sums + TILE, PANEL * 4);
}

static inline __attribute__((always_inline)) void multiply_rows(
    const int rows, const bf16 *left, int depth, const bf16 *panel, float *sums) {
    __m512 low[8], high[8];
#pragma GCC unroll 16
    for (int row = 0; row < rows; row++) low[row] = high[row] = _mm512_setzero_ps();
    const bf16 *right = panel;
    for (int k = 0; k < depth; k += 32, right += 2 * TILE * 32) {
        for (int pair = 0; pair < 16; pair++) {
            _mm_prefetch((const char *)(right + pair * 32) + 4096, _MM_HINT_T0);
            _mm_prefetch((const char *)(right + pair * 32) + 4096 + TILE_BYTES, _MM_HINT_T0);
            __m512bh first = (__m512bh)_mm512_loadu_si512(right + pair * 32);
            __m512bh second = (__m512bh)_mm512_loadu_si512(right + TILE * 32 + pair * 32);
#pragma GCC unroll 16
            for (int row = 0; row < rows; row++) {
                int32_t two;
                memcpy(&two, left + row * depth + k + 2 * pair, 4);
                __m512bh spread = (__m512bh)_mm512_set1_epi32(two);
                low[row] = _mm512_dpbf16_ps(low[row], spread, first);
                high[row] = _mm512_dpbf16_ps(high[row], spread, second);
            }
        }
    }
#pragma GCC unroll 16
    for (int row = 0; row < rows; row++) {
        _mm512_storeu_ps(sums + row * PANEL, low[row]);
        _mm512_storeu_ps(sums + row * PANEL + TILE, high[row]);
    }
}

static void multiply_vectors(const bf16 *left, int rows, int depth, const bf16 *panel, float *sums) {
    for (int row = 0; row < rows; row += 8, left += 8 * depth, sums += 8 * PANEL) {
        switch (rows - row) {
        case 1: multiply_rows(1, left, depth, panel, sums); break;
        case 2: multiply_rows(2, left, depth, panel, sums); break;
        case 3: multiply_rows(3, left, depth, panel, sums); break;
        case 4: multiply_rows(4, left, depth, panel, sums); break;
        case 5: multiply_rows(5, left, depth, panel, sums); break;
        case 6: multiply_rows(6, left, depth, panel, sums); break;
        case 7: multiply_rows(7, left, depth, panel, sums); break;
        default: multiply_rows(8, left, depth, panel, sums); break;
        }
    }
}

/* What becomes of a block of sums: `rows` of them from `row` on, columns of panel `panel`. */
typedef struct {
    enum { STORE, ADD, GATE } kind;
    float *floats;    /* STORE, ADD: [rows, width] */
    bf16 *halves;     /* GATE: [rows, width] */
    const bf16 *bias; /* STORE, ADD: [width] or null */
    int64_t width;
} Finish;

static void finish_block(const Finish *finish, const float *sums, int row, int rows, int panel) {
    for (int r = 0; r < rows; r++, sums += PANEL) {
        __m512 first = _mm512_loadu_ps(sums), second = _mm512_loadu_ps(sums + TILE);
        if (finish->kind == GATE) { /* silu(gate) * up */
            __m512 one = _mm512_set1_ps(1.0f);
            __m512 decay = exponential(_mm512_sub_ps(_mm512_setzero_ps(), first));
            __m512 gate = _mm512_mul_ps(first, reciprocal(_mm512_add_ps(one, decay)));
            bf16 *to = finish->halves + (row + r) * finish->width + (int64_t)panel * TILE;
            store_bf16(to, _mm512_mul_ps(gate, second));
            continue;
        }
        float *to = finish->floats + (row + r) * finish->width + (int64_t)panel * PANEL;
        if (finish->bias) {
            first = _mm512_add_ps(first, load_bf16(finish->bias + panel * PANEL));
            second = _mm512_add_ps(second, load_bf16(finish->bias + panel * PANEL + TILE));
        }
        if (finish->kind == ADD) {
            first = _mm512_add_ps(first, _mm512_loadu_ps(to));
            second = _mm512_add_ps(second, _mm512_loadu_ps(to + TILE));
        }
        _mm512_storeu_ps(to, first);
        _mm512_storeu_ps(to + TILE, second);
    }
}

/* This thread's panels of left [rows, depth] x weight, each against all rows while it is near. */
static void multiply(const Model *model, const bf16 *left, int rows, int depth, const bf16 *weight,
                     int panels, int thread, const Finish *finish) {
    float sums[ROWS * PANEL] __attribute__((aligned(64)));
    int from, to;
    share(panels, thread, model->threads, &from, &to);
    for (int panel = from; panel < to; panel++) {
        const bf16 *right = weight + (int64_t)panel * PANEL * depth;
        for (int row = 0; row < rows; row += ROWS) {
            int count = rows - row < ROWS ? rows - row : ROWS;
            const bf16 *some = left + (int64_t)row * depth;
            if (model->has_amx && row == 0) multiply_tiles(some, count, depth, right, 1, sums);
            else if (model->has_amx) multiply_tiles(some, count, depth, right, 0, sums);
            else multiply_vectors(some, count, depth, right, sums);
            finish_block(finish, sums, row, count, panel);
        }
    }
}

/* ---- norms and rotation ------------------------------------------------------------------ */

static void normalise(const float *from, const bf16 *weight, int size, float eps, bf16 *to) {
    __m512 squares = _mm512_setzero_ps();
    for (int i = 0; i < size; i += TILE) {
        __m512 x = _mm512_loadu_ps(from + i);
        squares = _mm512_fmadd_ps(x, x, squares);
    }
    __m512 factor = _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(squares) / size + eps));
    for (int i = 0; i < size; i += TILE) {
        /* Rounded before the weight, as the model was trained. */
        __m256i rounded = (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_loadu_ps(from + i), factor));
        __m512 x = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16));
        store_bf16(to + i, _mm512_mul_ps(x, load_bf16(weight + i)));
    }
}

static void normalise_head(float *head, const bf16 *weight, int size, float eps) {
    bf16 normed[MAX_HEAD];
    normalise(head, weight, size, eps, normed);
    for (int i = 0; i < size; i += TILE) _mm512_storeu_ps(head + i, load_bf16(normed + i));
}

/* Rotates one head and rounds it. The halves of a head turn together (GPT-NeoX). */
static void rotate(const float *head, const bf16 *cosines, const bf16 *sines, int size, bf16 *to) {
    int half = size / 2;
    for (int i = 0; i < half; i += TILE) {
        __m512 first = _mm512_loadu_ps(head + i), second = _mm512_loadu_ps(head + half + i);
        __m512 cosine = load_bf16(cosines + i), sine = load_bf16(sines + i);
        store_bf16(to + i, _mm512_fnmadd_ps(second, sine, _mm512_mul_ps(first, cosine)));
        store_bf16(to + half + i, _mm512_fmadd_ps(first, sine, _mm512_mul_ps(second, cosine)));
    }
}

/* One token's queries, keys and values from the product to where attention reads them. */
static void place_token(const Model *model, const Layer *layer, const Step *step, Buffers *b, int token) {
    const int size = model->head_dim, heads = model->heads, kv_heads = model->kv_heads;
    float *qkv = b->qkv + (int64_t)token * (heads + 2 * kv_heads) * size;
    const bf16 *cosines = model->cosines + step->positions[token] * size;
    const bf16 *sines = model->sines + step->positions[token] * size;
    bf16 *query = b->query + (int64_t)token * heads * size;
    int64_t slot = step->slots[token] * kv_heads * size;
    for (int head = 0; head < heads + kv_heads; head++) {
        const bf16 *weight = head < heads ? layer->query_norm : layer->key_norm;
        bf16 *to = head < heads ? query + head * size : layer->keys + slot + (head - heads) * size;
        if (weight) normalise_head(qkv + head * size, weight, size, model->eps);
        rotate(qkv + head * size, cosines, sines, size, to);
    }
    const float *value = qkv + (heads + kv_heads) * size;
    for (int i = 0; i < kv_heads * size; i += TILE)
        store_bf16(layer->values + slot + i, _mm512_loadu_ps(value + i));
}

/* ---- attention --------------------------------------------------------------------------- */

/* The sums of 16 vectors, one in each lane. */
static inline __m512 sum_each(__m512 *v) {
#pragma GCC unroll 16
    for (int i = 0; i < 8; i++) /* neighbours in pairs of lanes */
        v[i] = _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]),
                             _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
#pragma GCC unroll 16
    for (int i = 0; i < 4; i++) {
        __m512d a = _mm512_castps_pd(v[2 * i]), b = _mm512_castps_pd(v[2 * i + 1]);
        v[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
#pragma GCC unroll 16
    for (int i = 0; i < 2; i++)
        v[i] = _mm512_add_ps(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x88),
                             _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(v[0], v[1], 0x88), _mm512_shuffle_f32x4(v[0], v[1], 0xdd));
}

/* Scores of one query against 16 keys. */
static inline __attribute__((always_inline)) __m512 score(
    const bf16 *query, const bf16 *const *keys, const int size) {
    __m512 products[16];
#pragma GCC unroll 16
    for (int key = 0; key < 16; key++) {
        products[key] = _mm512_setzero_ps();
#pragma GCC unroll 16
        for (int i = 0; i < size; i += 32)
            products[key] = _mm512_dpbf16_ps(products[key], (__m512bh)_mm512_loadu_si512(query + i),
                                             (__m512bh)_mm512_loadu_si512(keys[key] + i));
    }
    return sum_each(products);
}

/* One query head's way through the keys: its highest score, and its sums weighted by it. */
typedef struct {
    float most, total;
    float sums[MAX_HEAD];
} Head;

/* Adds weighted values to the sums of `heads` queries that share them. */
static inline __attribute__((always_inline)) void weigh(
    const int heads, const int size, const float *weights, const bf16 *const *values, int count,
    Head *head) {
    __m512 total[4][MAX_HEAD / TILE];
#pragma GCC unroll 16
    for (int h = 0; h < heads; h++)
#pragma GCC unroll 16
        for (int i = 0; i < size / TILE; i++) total[h][i] = _mm512_loadu_ps(head[h].sums + i * TILE);
    for (int place = 0; place < count; place++)
#pragma GCC unroll 16
        for (int i = 0; i < size / TILE; i++) {
            __m512 value = load_bf16(values[place] + i * TILE);
#pragma GCC unroll 16
            for (int h = 0; h < heads; h++)
                total[h][i] = _mm512_fmadd_ps(_mm512_set1_ps(weights[h * KEYS + place]), value, total[h][i]);
        }
#pragma GCC unroll 16
    for (int h = 0; h < heads; h++)
#pragma GCC unroll 16
        for (int i = 0; i < size / TILE; i++) _mm512_storeu_ps(head[h].sums + i * TILE, total[h][i]);
}

static void weigh_heads(int heads, int size, const float *weights, const bf16 *const *values,
                        int count, Head *head) {
    while (heads > 0) {
        int some = size == 64 ? (heads > 4 ? 4 : heads) : (heads > 2 ? 2 : heads);
        switch (size + some) {
        case 65: weigh(1, 64, weights, values, count, head); break;
        case 66: weigh(2, 64, weights, values, count, head); break;
        case 67: weigh(3, 64, weights, values, count, head); break;
        case 68: weigh(4, 64, weights, values, count, head); break;
        case 129: weigh(1, 128, weights, values, count, head); break;
        default: weigh(2, 128, weights, values, count, head); break;
        }
        heads -= some, weights += some * KEYS, head += some;
    }
}

/* Where the first head's keys (or values) of positions `from` ... lie, in units of the cache's
 * numbers; those past `to` stand in as `to` - 1. */
static inline void find_rows(const Model *model, const Step *step, int sequence, int from, int to, int64_t *rows) {
    const int32_t *table = step->tables + (int64_t)sequence * step->most_blocks;
    const int64_t slot_size = (int64_t)model->kv_heads * model->head_dim;
    for (int i = 0; i < KEYS; i++) {
        int place = from + i < to ? from + i : to - 1;
        rows[i] = ((int64_t)table[place / model->block_size] * model->block_size + place % model->block_size) * slot_size;
    }
}

static inline void prefetch_rows(const bf16 *states, const int64_t *rows, int size) {
    for (int i = 0; i < KEYS; i++)
        for (int line = 0; line < size; line += 32) _mm_prefetch((const char *)(states + rows[i] + line), _MM_HINT_T1);
}

/* Weights of `count` keys; what the head has summed fades where a higher score has come. */
static inline void look(const Model *model, Head *head, const bf16 *query, const bf16 *const *keys, int count, float *weights) {
    const int size = model->head_dim;
    __m512 highest = _mm512_set1_ps(-INFINITY), added = _mm512_setzero_ps();
    for (int i = 0; i < count; i += 16) {
        __m512 found = size == 64 ? score(query, keys + i, 64) : score(query, keys + i, 128);
        found = _mm512_mul_ps(found, _mm512_set1_ps(model->scale));
        if (count - i < 16) found = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), (1u << (count - i)) - 1, found);
        _mm512_store_ps(weights + i, found);
        highest = _mm512_max_ps(highest, found);
    }
    const float peak = fmaxf(head->most, _mm512_reduce_max_ps(highest));
    const float fade = head->most == -INFINITY ? 0.0f : expf(head->most - peak);
    for (int i = 0; i < count; i += 16) {
        __m512 weight = exponential(_mm512_sub_ps(_mm512_load_ps(weights + i), _mm512_set1_ps(peak)));
        if (count - i < 16) weight = _mm512_maskz_mov_ps((1u << (count - i)) - 1, weight);
        _mm512_store_ps(weights + i, weight);
        added = _mm512_add_ps(added, weight);
    }
    if (fade != 1.0f)
        for (int i = 0; i < size; i += TILE)
            _mm512_storeu_ps(head->sums + i, _mm512_mul_ps(_mm512_loadu_ps(head->sums + i), _mm512_set1_ps(fade)));
    head->total = head->total * fade + _mm512_reduce_add_ps(added);
    head->most = peak;
}

/* One query token, by online softmax over 64 keys at a time. Heads from `kv_from` to `kv_to` go
 * together, because their keys are neighbours in memory. */
static void attend_token(const Model *model, const Layer *layer, const Step *step, const Buffers *b,
                         int sequence, int token, int kv_from, int kv_to) {
    const int size = model->head_dim, group = model->heads / model->kv_heads;
    const int length = (int)step->positions[token] + 1, width = (kv_to - kv_from) * size;
    const int begin = model->window && length > model->window ? length - model->window : 0;
    const int64_t place = ((int64_t)token * model->heads + kv_from * group) * size;
    const bf16 *first_keys = layer->keys + kv_from * size, *first_values = layer->values + kv_from * size;
    const bf16 *keys[KEYS], *values[KEYS];
    int64_t rows[KEYS], next[KEYS];
    float weights[MAX_GROUP * KEYS] __attribute__((aligned(64)));
    Head heads[MAX_HEADS];
    for (int h = 0; h < (kv_to - kv_from) * group; h++) {
        memset(heads[h].sums, 0, size * sizeof(float));
        heads[h].most = -INFINITY, heads[h].total = 0;
    }
    find_rows(model, step, sequence, begin, length, next);
    for (int from = begin; from < length; from += KEYS) {
        const int count = length - from < KEYS ? length - from : KEYS;
        memcpy(rows, next, sizeof rows);
        if (from + KEYS < length) {
            find_rows(model, step, sequence, from + KEYS, length, next);
            prefetch_rows(first_keys, next, width);
            prefetch_rows(first_values, next, width);
        }
        for (int kv_head = 0; kv_head < kv_to - kv_from; kv_head++) {
            Head *mine = heads + kv_head * group;
            for (int i = 0; i < KEYS; i++) {
                keys[i] = first_keys + rows[i] + kv_head * size;
                values[i] = first_values + rows[i] + kv_head * size;
            }
            for (int h = 0; h < group; h++)
                look(model, mine + h, b->query + place + (kv_head * group + h) * size, keys, count, weights + h * KEYS);
            weigh_heads(group, size, weights, values, count, mine);
        }
    }
    for (int h = 0; h < (kv_to - kv_from) * group; h++) {
        __m512 share_of_one = _mm512_set1_ps(1.0f / heads[h].total);
        for (int i = 0; i < size; i += TILE)
            store_bf16(b->attended + place + h * size + i,
                       _mm512_mul_ps(_mm512_loadu_ps(heads[h].sums + i), share_of_one));
    }
}

/* 16 x 16 words turned over, into a tile. */
static inline void transpose(const bf16 *const *rows, int offset, char *tile) {
    __m512i a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(rows[i] + offset);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 4) {
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 4; i++) {
        b[i] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88);
        b[i + 4] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd);
        b[i + 8] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88);
        b[i + 12] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 4; i++) {
        _mm512_storeu_si512(tile + 64 * i, _mm512_shuffle_i32x4(b[i], b[i + 8], 0x88));
        _mm512_storeu_si512(tile + 64 * (i + 8), _mm512_shuffle_i32x4(b[i], b[i + 8], 0xdd));
        _mm512_storeu_si512(tile + 64 * (i + 4), _mm512_shuffle_i32x4(b[i + 4], b[i + 12], 0x88));
        _mm512_storeu_si512(tile + 64 * (i + 12), _mm512_shuffle_i32x4(b[i + 4], b[i + 12], 0xdd));
    }
}

/* 16 tokens of one sequence, the heads that share a key/value head, with tiles: FlashAttention's
 * order (Dao, 2023), 64 keys at a time. */
static void attend_tile(const Model *model, const Layer *layer, const Step *step, const Buffers *b,
                        int sequence, int first, int kv_head) {
    const int size = model->head_dim, group = model->heads / model->kv_heads, steps = size / 32;
    const int end = step->starts[sequence + 1];
    const int tokens = end - first < TILE ? end - first : TILE;
    const int length = (int)step->positions[first + tokens - 1] + 1;
    const int start = (int)step->positions[first] + 1;
    const int begin = model->window && start > model->window ? (start - model->window) / KEYS * KEYS : 0;
    const int stride = model->heads * size;
    char keys[KEYS * MAX_HEAD * 2] __attribute__((aligned(64))), values[KEYS * MAX_HEAD * 2] __attribute__((aligned(64)));
    float scores[TILE * KEYS] __attribute__((aligned(64)));
    bf16 weights[TILE * KEYS] __attribute__((aligned(64)));
    float sums[16][TILE * MAX_HEAD], most[16][TILE], total[16][TILE];
    memset(weights, 0, sizeof weights); /* rows that only fill up the tile */
    for (int h = 0; h < group; h++) {
        memset(sums[h], 0, sizeof(float) * TILE * size);
        for (int row = 0; row < TILE; row++) most[h][row] = -INFINITY, total[h][row] = 0;
    }
    for (int from = begin; from < length; from += KEYS) {
        const bf16 *rows[KEYS];
        int64_t places[KEYS];
        find_rows(model, step, sequence, from, length, places);
        for (int i = 0; i < KEYS; i++) rows[i] = layer->keys + places[i] + kv_head * size;
        for (int part = 0; part < 4; part++) /* key tiles: [part][step] */
            for (int k = 0; k < steps; k++)
                transpose(rows + part * 16, k * 32, keys + (part * steps + k) * TILE_BYTES);
        for (int i = 0; i < KEYS; i++) rows[i] = layer->values + places[i] + kv_head * size;
        for (int pair = 0; pair < KEYS / 2; pair++) /* value tiles: [half of the keys][16 columns] */
            for (int i = 0; i < size / TILE; i++) {
                __m512i even = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(rows[2 * pair] + i * TILE)));
                __m512i odd = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(rows[2 * pair + 1] + i * TILE)));
                char *tile = values + ((pair / 16) * (size / TILE) + i) * TILE_BYTES;
                _mm512_storeu_si512(tile + (pair % 16) * 64, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
            }
        for (int h = 0; h < group; h++) {
            const bf16 *query = b->query + (int64_t)first * stride + (kv_head * group + h) * size;
            _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
            for (int k = 0; k < steps; k++) {
                _tile_loadd(4, query + k * 32, stride * 2);
                _tile_loadd(6, keys + k * TILE_BYTES, 64);
                _tile_dpbf16ps(0, 4, 6);
                _tile_loadd(7, keys + (steps + k) * TILE_BYTES, 64);
                _tile_dpbf16ps(1, 4, 7);
                _tile_loadd(6, keys + (2 * steps + k) * TILE_BYTES, 64);
                _tile_dpbf16ps(2, 4, 6);
                _tile_loadd(7, keys + (3 * steps + k) * TILE_BYTES, 64);
                _tile_dpbf16ps(3, 4, 7);
            }
            _tile_stored(0, scores, KEYS * 4);
            _tile_stored(1, scores + 16, KEYS * 4);
            _tile_stored(2, scores + 32, KEYS * 4);
            _tile_stored(3, scores + 48, KEYS * 4);
            for (int row = 0; row < tokens; row++) {
                const int last = (int)step->positions[first + row] - from; /* the last key it sees */
                const int lowest = model->window ? last - model->window + 1 : 0;
                uint64_t seen = last >= 63 ? ~0ull : last < 0 ? 0 : (1ull << (last + 1)) - 1;
                if (lowest > 0) seen &= lowest > 63 ? 0 : ~0ull << lowest;
                float *to = sums[h] + row * size;
                if (!seen) { memset(weights + row * KEYS, 0, KEYS * 2); continue; }
                __m512 found[4], highest = _mm512_set1_ps(-INFINITY), added = _mm512_setzero_ps();
                for (int i = 0; i < 4; i++) {
                    found[i] = _mm512_mul_ps(_mm512_load_ps(scores + row * KEYS + i * 16), _mm512_set1_ps(model->scale));
                    found[i] = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), (__mmask16)(seen >> (16 * i)), found[i]);
                    highest = _mm512_max_ps(highest, found[i]);
                }
                float peak = fmaxf(most[h][row], _mm512_reduce_max_ps(highest));
                for (int i = 0; i < 4; i++) {
                    found[i] = _mm512_maskz_mov_ps((__mmask16)(seen >> (16 * i)), exponential(_mm512_sub_ps(found[i], _mm512_set1_ps(peak))));
                    store_bf16(weights + row * KEYS + i * 16, found[i]);
                    added = _mm512_add_ps(added, found[i]);
                }
                if (peak != most[h][row]) {
                    float fade = most[h][row] == -INFINITY ? 0.0f : expf(most[h][row] - peak);
                    for (int i = 0; i < size; i += TILE)
                        _mm512_storeu_ps(to + i, _mm512_mul_ps(_mm512_loadu_ps(to + i), _mm512_set1_ps(fade)));
                    total[h][row] *= fade;
                    most[h][row] = peak;
                }
                total[h][row] += _mm512_reduce_add_ps(added);
            }
            for (int i = 0; i < size / TILE; i++) {
                _tile_loadd(0, sums[h] + i * TILE, size * 4);
                _tile_loadd(4, weights, KEYS * 2);
                _tile_loadd(6, values + i * TILE_BYTES, 64);
                _tile_dpbf16ps(0, 4, 6);
                _tile_loadd(5, weights + 32, KEYS * 2);
                _tile_loadd(7, values + (size / TILE + i) * TILE_BYTES, 64);
                _tile_dpbf16ps(0, 5, 7);
                _tile_stored(0, sums[h] + i * TILE, size * 4);
            }
        }
    }
    for (int h = 0; h < group; h++)
        for (int row = 0; row < tokens; row++) {
            bf16 *to = b->attended + (int64_t)(first + row) * stride + (kv_head * group + h) * size;
            __m512 share_of_one = _mm512_set1_ps(1.0f / total[h][row]);
            for (int i = 0; i < size; i += TILE)
                store_bf16(to + i, _mm512_mul_ps(_mm512_loadu_ps(sums[h] + row * size + i), share_of_one));
        }
}

/* Tokens of a sequence that are attended to together. */
static inline int tile_of(const Model *model, const Step *step, int sequence) {
    return model->has_amx && step->starts[sequence + 1] - step->starts[sequence] >= TILE ? TILE : 1;
}

/* Sequences differ in length by much, so threads take what is next. A token's heads are parted
 * only where tokens are few. */
static void attend(const Model *model, const Layer *layer, const Step *step, const Buffers *b, Team *team) {
    const int kv_heads = model->kv_heads;
    const int is_few = step->tokens < 4 * model->threads || model->heads > MAX_HEADS;
    int mine = atomic_fetch_add_explicit(&team->next_item, 1, memory_order_relaxed), item = 0;
    for (int sequence = 0; sequence < step->sequences; sequence++) {
        const int tile = tile_of(model, step, sequence), together = tile == 1 && !is_few ? kv_heads : 1;
        for (int token = step->starts[sequence]; token < step->starts[sequence + 1]; token += tile)
            for (int kv_head = 0; kv_head < kv_heads; kv_head += together, item++) {
                if (item != mine) continue;
                if (tile == 1) attend_token(model, layer, step, b, sequence, token, kv_head, kv_head + together);
                else attend_tile(model, layer, step, b, sequence, token, kv_head);
                mine = atomic_fetch_add_explicit(&team->next_item, 1, memory_order_relaxed);
            }
    }
}

/* ---- the step ---------------------------------------------------------------------------- */

static inline int64_t padded(int64_t rows) { return (rows + ROWS - 1) / ROWS * ROWS; }

static char *cut(char **from, int64_t bytes) {
    char *start = *from;
    *from += (bytes + 63) / 64 * 64;
    return start;
}

static char *lay_out(const Model *m, int tokens, int samples, char *scratch, Buffers *b) {
    int64_t rows = padded(tokens > samples ? tokens : samples);
    int64_t query = (int64_t)m->heads * m->head_dim, all = query + 2 * (int64_t)m->kv_heads * m->head_dim;
    b->residual = (float *)cut(&scratch, rows * m->hidden * 4);
    b->qkv = (float *)cut(&scratch, rows * all * 4);
    b->normed = (bf16 *)cut(&scratch, rows * m->hidden * 2);
    b->query = (bf16 *)cut(&scratch, rows * query * 2);
    b->attended = (bf16 *)cut(&scratch, rows * query * 2);
    b->activated = (bf16 *)cut(&scratch, rows * m->inner * 2);
    return scratch;
}

int64_t scratch_bytes(const Model *model, int32_t tokens, int32_t samples) {
    Buffers buffers;
    return lay_out(model, tokens, samples, (char *)0, &buffers) - (char *)0;
}

static void compute_layer(const Model *m, const Layer *layer, const Step *step, Buffers *b, int thread, Team *team) {
    const int query = m->heads * m->head_dim, all = query + 2 * m->kv_heads * m->head_dim;
    int from, to;
    share(step->tokens, thread, m->threads, &from, &to);
    for (int row = from; row < to; row++)
        normalise(b->residual + (int64_t)row * m->hidden, layer->input_norm, m->hidden, m->eps, b->normed + (int64_t)row * m->hidden);
    meet(team);
    Finish store = {.kind = STORE, .floats = b->qkv, .bias = layer->qkv_bias, .width = all};
    multiply(m, b->normed, step->tokens, m->hidden, layer->qkv, all / PANEL, thread, &store);
    meet(team);
    for (int row = from; row < to; row++) place_token(m, layer, step, b, row);
    meet(team);
    attend(m, layer, step, b, team);
    meet(team);
    Finish add = {.kind = ADD, .floats = b->residual, .bias = layer->output_bias, .width = m->hidden};
    multiply(m, b->attended, step->tokens, query, layer->output, m->hidden / PANEL, thread, &add);
    meet(team);
    for (int row = from; row < to; row++)
        normalise(b->residual + (int64_t)row * m->hidden, layer->post_norm, m->hidden, m->eps, b->normed + (int64_t)row * m->hidden);
    meet(team);
    Finish gate = {.kind = GATE, .halves = b->activated, .width = m->inner};
    multiply(m, b->normed, step->tokens, m->hidden, layer->gate_up, m->inner / TILE, thread, &gate);
    meet(team);
    add.bias = 0;
    multiply(m, b->activated, step->tokens, m->inner, layer->down, m->hidden / PANEL, thread, &add);
    meet(team);
}

static void compute(const Model *m, const Layer *layers, const Step *step, int thread, Team *team) {
    Buffers buffers, *b = &buffers;
    int from, to;
    lay_out(m, step->tokens, step->samples, step->scratch, b);
    if (m->has_amx) configure_tiles(step->tokens < TILE ? step->tokens : TILE);
    share(step->tokens, thread, m->threads, &from, &to);
    for (int row = from; row < to; row++)
        for (int i = 0; i < m->hidden; i += TILE)
            _mm512_storeu_ps(b->residual + (int64_t)row * m->hidden + i, load_bf16(m->embedding + step->token_ids[row] * m->hidden + i));
    for (int index = 0; index < m->layers; index++) compute_layer(m, layers + index, step, b, thread, team);
    share(step->samples, thread, m->threads, &from, &to);
    for (int row = from; row < to; row++)
        normalise(b->residual + step->sample_rows[row] * m->hidden, m->norm, m->hidden, m->eps, b->normed + (int64_t)row * m->hidden);
    meet(team);
    Finish store = {.kind = STORE, .floats = step->logits, .width = m->vocabulary};
    multiply(m, b->normed, step->samples, m->hidden, m->head, m->vocabulary / PANEL, thread, &store);
    if (m->has_amx) _tile_release();
}

void decode(const Model *model, const Layer *layers, const Step *step) {
    Team team = {.threads = model->threads};
    Model mine = *model;
#pragma omp parallel num_threads(model->threads)
    {
        /* Fewer threads than asked for would leave work undone; all must wait for that to be known. */
#pragma omp single
        team.threads = mine.threads = omp_get_num_threads();
        compute(&mine, layers, step, omp_get_thread_num(), &team);
    }
}
