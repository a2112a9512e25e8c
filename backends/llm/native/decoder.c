/* One step of a Llama-shaped decoder over the paged cache, in bfloat16, on x86 processors with
 * AVX512-BF16 and, where there is one, AMX. What it must give is what models/torch_decoder.py and
 * attention/torch_reference.py give; backends/llm/native/decoder.py describes the arguments.
 *
 * All threads walk through the whole step together and meet at a barrier wherever one needs what
 * another has made. Sums are float32; the residual stream stays float32 throughout.
 */
#include <omp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "attention_tiles.h"
#include "products.h"

/* One token's queries, keys and values from the product to where attention reads them. */
static void place_token(const Model *model, const Layer *layer, const Step *step, Buffers *b,
                        int token) {
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

/* Tokens of a sequence that are attended to together. */
static inline int tile_of(const Model *model, const Step *step, int sequence) {
    return model->has_amx && step->starts[sequence + 1] - step->starts[sequence] >= TILE ? TILE : 1;
}

/* Sequences differ in length by much, so threads take what is next. A token's heads are parted
 * only where tokens are few. */
static void attend(const Model *model, const Layer *layer, const Step *step, const Buffers *b,
                   Team *team) {
    const int kv_heads = model->kv_heads;
    const int is_few = step->tokens < 4 * model->threads || model->heads > MAX_HEADS;
    int mine = atomic_fetch_add_explicit(&team->next_item, 1, memory_order_relaxed), item = 0;
    for (int sequence = 0; sequence < step->sequences; sequence++) {
        const int tile = tile_of(model, step, sequence),
                  together = tile == 1 && !is_few ? kv_heads : 1;
        for (int token = step->starts[sequence]; token < step->starts[sequence + 1]; token += tile)
            for (int kv_head = 0; kv_head < kv_heads; kv_head += together, item++) {
                if (item != mine) continue;
                if (tile == 1)
                    attend_token(model, layer, step, b, sequence, token, kv_head,
                                 kv_head + together);
                else
                    attend_tile(model, layer, step, b, sequence, token, kv_head);
                mine = atomic_fetch_add_explicit(&team->next_item, 1, memory_order_relaxed);
            }
    }
}

static inline int64_t padded(int64_t rows) {
    return (rows + ROWS - 1) / ROWS * ROWS;
}

static char *cut(char **from, int64_t bytes) {
    char *start = *from;
    *from += (bytes + 63) / 64 * 64;
    return start;
}

static char *lay_out(const Model *m, int tokens, int samples, char *scratch, Buffers *b) {
    int64_t rows = padded(tokens > samples ? tokens : samples);
    int64_t query = (int64_t)m->heads * m->head_dim,
            all = query + 2 * (int64_t)m->kv_heads * m->head_dim;
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

static void compute_layer(const Model *m, const Layer *layer, const Step *step, Buffers *b,
                          int thread, Team *team) {
    const int query = m->heads * m->head_dim, all = query + 2 * m->kv_heads * m->head_dim;
    int from, to;
    share(step->tokens, thread, m->threads, &from, &to);
    for (int row = from; row < to; row++)
        normalise(b->residual + (int64_t)row * m->hidden, layer->input_norm, m->hidden, m->eps,
                  b->normed + (int64_t)row * m->hidden);
    meet(team);
    Finish store = {.kind = STORE, .floats = b->qkv, .bias = layer->qkv_bias, .width = all};
    multiply(m, b->normed, step->tokens, m->hidden, layer->qkv, all / PANEL, thread, &store);
    meet(team);
    for (int row = from; row < to; row++) place_token(m, layer, step, b, row);
    meet(team);
    attend(m, layer, step, b, team);
    meet(team);
    Finish add = {
        .kind = ADD, .floats = b->residual, .bias = layer->output_bias, .width = m->hidden};
    multiply(m, b->attended, step->tokens, query, layer->output, m->hidden / PANEL, thread, &add);
    meet(team);
    for (int row = from; row < to; row++)
        normalise(b->residual + (int64_t)row * m->hidden, layer->post_norm, m->hidden, m->eps,
                  b->normed + (int64_t)row * m->hidden);
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
            _mm512_storeu_ps(b->residual + (int64_t)row * m->hidden + i,
                             load_bf16(m->embedding + step->token_ids[row] * m->hidden + i));
    for (int index = 0; index < m->layers; index++)
        compute_layer(m, layers + index, step, b, thread, team);
    share(step->samples, thread, m->threads, &from, &to);
    for (int row = from; row < to; row++)
        normalise(b->residual + step->sample_rows[row] * m->hidden, m->norm, m->hidden, m->eps,
                  b->normed + (int64_t)row * m->hidden);
    meet(team);
    Finish store = {.kind = STORE, .floats = step->logits, .width = m->vocabulary};
    multiply(m, b->normed, step->samples, m->hidden, m->head, m->vocabulary / PANEL, thread,
             &store);
    if (m->has_amx) _tile_release();
}

void decode(const Model *model, const Layer *layers, const Step *step) {
    Team team = {.threads = model->threads};
    Model mine = *model;
#pragma omp parallel num_threads(model->threads)
    {
        /* Fewer threads than asked for would leave work undone; all must wait for that to be known.
         */
#pragma omp single
        team.threads = mine.threads = omp_get_num_threads();
        compute(&mine, layers, step, omp_get_thread_num(), &team);
    }
}

int32_t allow_tiles(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0;
}
