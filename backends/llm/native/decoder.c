/* One step of a decoder over the paged cache, in bfloat16, on x86 processors with AVX512-BF16 and,
 * where there is one, AMX. What it must give is what models/torch_decoder.py and
 * attention/torch_reference.py give; native/decoder.py describes the arguments. A layer is what its
 * structure says: each kind is a piece of its own, and costs nothing where it is not.
 *
 * All threads walk through the whole step together and meet at a barrier wherever one needs what
 * another has made. Sums are float32; the residual stream stays float32 throughout.
 */
#include <omp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "attention_tiles.h"
#include "heads.h"
#include "mlps.h"

/* Tokens of a sequence that are attended to together. */
static inline int tile_of(const Model *model, const Step *step, int sequence) {
    return model->has_amx && step->starts[sequence + 1] - step->starts[sequence] >= TILE ? TILE : 1;
}

/* Sequences differ in length by much, so threads take what is next. A token's heads are parted
 * only where tokens are few. */
static void attend(const Model *model, const Layer *layer, const Step *step, const Buffers *b,
                   Team *team) {
    const int kv_heads = layer->kv_heads;
    const int is_few = step->tokens < 4 * model->threads || layer->heads > MAX_HEADS;
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

/* This thread's rows, for a product. */
static void norm_rows(const Walk *w, const Norm *norm, bf16 *to) {
    const int64_t size = w->model->hidden;
    for (int row = w->from; row < w->to; row++)
        normalise(norm, w->buffers.residual + row * size, (int)size, to + row * size);
}

/* Adds this thread's rows of what a norm stands behind. */
static void take_in(const Walk *w, const Layer *layer, const Norm *after) {
    const int64_t size = w->model->hidden;
    if (after->kind == NO_NORM) return;
    for (int row = w->from; row < w->to; row++)
        add_normed(after, w->buffers.change + row * size, (int)size, layer->multiplier,
                   w->buffers.residual + row * size);
}

/* Where a layer's product goes: to what its norm reads, or at once to the residual stream. */
static Finish finish_for(const Walk *w, const Layer *layer, const Norm *after) {
    if (after->kind != NO_NORM)
        return (Finish){.kind = STORE, .floats = w->buffers.change, .width = w->model->hidden};
    return (Finish){.kind = ADD,
                    .floats = w->buffers.residual,
                    .multiplier = layer->multiplier,
                    .width = w->model->hidden};
}

static void make_heads(const Walk *w, const Layer *layer) {
    const int all = (layer->heads + 2 * layer->kv_heads) * layer->head_dim;
    Finish store = {.kind = STORE, .floats = w->buffers.qkv, .bias = layer->qkv_bias, .width = all};
    if (w->adapters) add_from(&w->adapters->qkv, w->step->lowered, &store);
    multiply(w->model, w->buffers.normed, w->step->tokens, w->model->hidden, layer->qkv,
             all / PANEL, w->thread, &store);
}

/* Reads what all threads have met behind, and meets them again. */
static void lower_heads(const Walk *w, const Layer *layer, const bf16 *of_mlp) {
    const Adapters *adapters = w->adapters;
    if (!adapters) return;
    lower(w, &adapters->qkv, w->buffers.normed, w->model->hidden, w->step->lowered);
    if (layer->is_parallel)
        lower(w, &adapters->into, of_mlp, w->model->hidden, w->step->lowered_too);
    meet(w->team);
}

static void lower_attended(const Walk *w, const Layer *layer) {
    if (!w->adapters) return;
    lower(w, &w->adapters->output, w->buffers.attended, layer->heads * layer->head_dim,
          w->step->lowered);
    meet(w->team);
}

static void lower_into(const Walk *w) {
    if (!w->adapters) return;
    lower(w, &w->adapters->into, w->buffers.normed, w->model->hidden, w->step->lowered_too);
    meet(w->team);
}

static void lower_down(const Walk *w, const Layer *layer) {
    if (!w->adapters) return;
    lower(w, &w->adapters->down, w->buffers.activated, layer->mlps[0].inner, w->step->lowered_too);
    meet(w->team);
}

static void leave_attention(const Walk *w, const Layer *layer) {
    Finish finish = finish_for(w, layer, &layer->after_attention);
    finish.bias = layer->output_bias;
    if (w->adapters) add_from(&w->adapters->output, w->step->lowered, &finish);
    multiply(w->model, w->buffers.attended, w->step->tokens, layer->heads * layer->head_dim,
             layer->output, w->model->hidden / PANEL, w->thread, &finish);
}

/* Experts add to one another. */
static Finish finish_for_mlp(const Walk *w, const Layer *layer) {
    Finish finish = finish_for(w, layer, &layer->after_mlp);
    if (layer->router.count) finish.kind = ADD;
    return finish;
}

static void clear_change(const Walk *w, const Layer *layer) {
    const int64_t size = w->model->hidden;
    if (layer->router.count && layer->after_mlp.kind != NO_NORM)
        memset(w->buffers.change + w->from * size, 0, (w->to - w->from) * size * sizeof(float));
}

/* Threads have met, but for rows that each adds to by itself. */
static void compute_layer(Walk *w, const Layer *layer) {
    const Buffers *b = &w->buffers;
    const int has_two_norms = layer->is_parallel && layer->before_mlp.kind != NO_NORM;
    norm_rows(w, &layer->before_attention, b->normed);
    if (has_two_norms) norm_rows(w, &layer->before_mlp, b->beside);
    meet(w->team);
    lower_heads(w, layer, has_two_norms ? b->beside : b->normed);
    make_heads(w, layer);
    if (layer->is_parallel) enter_mlp(w, layer, has_two_norms ? b->beside : b->normed);
    meet(w->team);
    for (int row = w->from; row < w->to; row++) place_token(layer, w->step, b, row);
    meet(w->team);
    attend(w->model, layer, w->step, b, w->team);
    meet(w->team);
    lower_attended(w, layer);
    leave_attention(w, layer);
    if (!layer->is_parallel) {
        meet(w->team);
        take_in(w, layer, &layer->after_attention);
        norm_rows(w, &layer->before_mlp, b->normed);
        clear_change(w, layer);
        meet(w->team);
        lower_into(w);
        enter_mlp(w, layer, b->normed);
        meet(w->team);
    }
    lower_down(w, layer);
    leave_mlp(w, layer, finish_for_mlp(w, layer));
    meet(w->team);
    take_in(w, layer, &layer->after_mlp);
}

/* One token to what the first layer reads. */
static void embed(const Model *m, const Step *step, int token, float *to) {
    const bf16 *from = step->embedded ? step->embedded + (int64_t)token * m->hidden
                                      : m->embedding + step->token_ids[token] * m->hidden;
    const int64_t place = (step->positions[token] + m->first_position) * m->hidden;
    const __m512 factor = _mm512_set1_ps(m->embedding_multiplier);
    for (int i = 0; i < m->hidden; i += TILE) {
        __m512 x = _mm512_mul_ps(load_bf16(from + i), factor);
        if (m->places) x = _mm512_add_ps(x, load_bf16(m->places + place + i));
        _mm512_storeu_ps(to + i, x);
    }
    if (m->embedding_norm.kind) normalise_in_place(&m->embedding_norm, to, m->hidden);
}

static void compute_logits(const Walk *w) {
    const Model *m = w->model;
    const Step *step = w->step;
    const Buffers *b = &w->buffers;
    int from, to;
    share(step->samples, w->thread, m->threads, &from, &to);
    for (int row = from; row < to; row++)
        normalise(&m->norm, b->residual + step->sample_rows[row] * m->hidden, m->hidden,
                  b->normed + (int64_t)row * m->hidden);
    if (step->states)
        memcpy(step->states + (int64_t)from * m->hidden, b->normed + (int64_t)from * m->hidden,
               (int64_t)(to - from) * m->hidden * sizeof(bf16));
    meet(w->team);
    Finish store = {.kind = STORE,
                    .floats = step->logits,
                    .bias = m->head_bias,
                    .multiplier = m->logit_multiplier,
                    .cap = m->logit_cap,
                    .width = m->vocabulary};
    multiply(m, b->normed, step->samples, m->hidden, m->head, m->vocabulary / PANEL, w->thread,
             &store);
}

static void compute(const Model *m, const Layer *layers, const Step *step, int thread, Team *team) {
    Walk walk = {.model = m, .step = step, .team = team, .thread = thread};
    lay_out(m, layers, step, step->scratch, &walk.buffers);
    if (m->has_amx) configure_tiles(step->tokens < TILE ? step->tokens : TILE);
    share(step->tokens, thread, m->threads, &walk.from, &walk.to);
    for (int row = walk.from; row < walk.to; row++)
        embed(m, step, row, walk.buffers.residual + (int64_t)row * m->hidden);
    for (int index = 0; index < m->layers; index++) {
        walk.adapters = step->adapters ? step->adapters + index : 0;
        compute_layer(&walk, layers + index);
    }
    meet(team);
    compute_logits(&walk);
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

int64_t scratch_bytes(const Model *model, const Layer *layers, int32_t tokens, int32_t samples) {
    Buffers buffers;
    const Step step = {.tokens = tokens, .samples = samples};
    return lay_out(model, layers, &step, (char *)0, &buffers) - (char *)0;
}

/* Of Model, Layer, Mlp, Step and Adapters: whoever fills them in must have the same. */
int32_t structure_bytes(void) {
    return (int32_t)(sizeof(Model) + sizeof(Layer) + sizeof(Mlp) + sizeof(Step) + sizeof(Adapters));
}

int32_t allow_tiles(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0;
}
