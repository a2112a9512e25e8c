/* One step of a decoder over the paged cache, in bfloat16, on x86 processors with AVX512-BF16 and,
 * where there is one, AMX. What it must give is what models/torch_decoder.py and
 * attention/torch_reference.py give; native/decoder.py describes the arguments. A layer is what its
 * structure says: each kind is a piece of its own, and costs nothing where it is not.
 *
 * All threads walk through the whole step together, phase by phase: a phase reads what those before
 * it have made (team.h). Sums are float32; the residual stream stays float32 throughout.
 */
#include <omp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "alone.h"
#include "attention_pieces.h"
#include "heads.h"
#include "laying.h"
#include "mlps.h"

static inline float *row_of(float *rows, const Walk *w, int row) {
    return rows + (int64_t)row * w->model->hidden;
}

/* A row, for a product. */
static void norm_row(const Walk *w, const Norm *norm, int row, bf16 *to) {
    const int size = w->model->hidden;
    normalise(norm, row_of(w->buffers.residual, w, row), size, to + (int64_t)row * size);
}

/* Adds what a norm stands behind. */
static void take_in(const Walk *w, const Layer *layer, const Norm *after, int row) {
    if (after->kind != NO_NORM)
        add_normed(after, row_of(w->buffers.change, w, row), w->model->hidden, layer->multiplier,
                   row_of(w->buffers.residual, w, row));
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

static void make_heads(Walk *w, const Layer *layer) {
    const int all = (layer->heads + 2 * layer->kv_heads) * layer->head_dim;
    Product product = {
        .left = w->buffers.normed,
        .rows = w->step->tokens,
        .depth = w->model->hidden,
        .weight = layer->qkv,
        .finish = {.kind = STORE, .floats = w->buffers.qkv, .bias = layer->qkv_bias, .width = all},
    };
    if (w->adapters) add_from(&w->adapters->qkv, w->step->lowered, &product.finish);
    multiply(w, product);
}

static void lower_heads(Walk *w) {
    if (w->adapters)
        lower(w, &w->adapters->qkv, w->buffers.normed, w->model->hidden, w->step->lowered);
}

static void lower_attended(Walk *w, const Layer *layer) {
    if (w->adapters)
        lower(w, &w->adapters->output, w->buffers.attended, layer->heads * layer->head_dim,
              w->step->lowered);
}

static void leave_attention(Walk *w, const Layer *layer) {
    Product product = {
        .left = w->buffers.attended,
        .rows = w->step->tokens,
        .depth = layer->heads * layer->head_dim,
        .weight = layer->output,
        .finish = finish_for(w, layer, &layer->after_attention),
    };
    product.finish.bias = layer->output_bias;
    if (w->adapters) add_from(&w->adapters->output, w->step->lowered, &product.finish);
    multiply(w, product);
}

/* Experts add to one another. */
static Finish finish_for_mlp(const Walk *w, const Layer *layer) {
    Finish finish = finish_for(w, layer, &layer->after_mlp);
    if (layer->router.count) finish.kind = ADD;
    return finish;
}

static void clear_change(const Walk *w, const Layer *layer, int row) {
    if (layer->router.count && layer->after_mlp.kind != NO_NORM)
        memset(row_of(w->buffers.change, w, row), 0, w->model->hidden * sizeof(float));
}

static inline int has_two_norms(const Layer *layer) {
    return layer->is_parallel && layer->before_mlp.kind != NO_NORM;
}

/* `before`: the layer before, or null. */
static void enter_layer(Walk *w, const Layer *layer, const Layer *before) {
    for (Work work = begin_short(w, w->step->tokens); take(&work); kept(&work)) {
        if (before) take_in(w, before, &before->after_mlp, work.piece);
        norm_row(w, &layer->before_attention, work.piece, w->buffers.normed);
        if (has_two_norms(layer)) norm_row(w, &layer->before_mlp, work.piece, w->buffers.beside);
    }
}

static void place_tokens(Walk *w, const Layer *layer) {
    for (Work work = begin_short(w, w->step->tokens); take(&work); kept(&work))
        place_token(layer, w->step, &w->buffers, work.piece);
}

static void turn_to_mlp(Walk *w, const Layer *layer) {
    for (Work work = begin_short(w, w->step->tokens); take(&work); kept(&work)) {
        take_in(w, layer, &layer->after_attention, work.piece);
        norm_row(w, &layer->before_mlp, work.piece, w->buffers.normed);
        clear_change(w, layer, work.piece);
    }
}

/* Each line is a phase of its own, or several. */
static void compute_layer(Walk *w, const Layer *layer, const Layer *before) {
    const bf16 *of_mlp = has_two_norms(layer) ? w->buffers.beside : w->buffers.normed;
    const Finish finish = finish_for_mlp(w, layer);
    enter_layer(w, layer, before);
    lower_heads(w);
    make_heads(w, layer);
    if (layer->is_parallel) enter_mlp(w, layer, of_mlp);
    place_tokens(w, layer);
    attend(w, layer);
    lower_attended(w, layer);
    leave_attention(w, layer);
    if (!layer->is_parallel) {
        turn_to_mlp(w, layer);
        enter_mlp(w, layer, w->buffers.normed);
    }
    leave_mlp(w, layer, &finish);
}

/* A token's row of the embedding, or of what is there instead. */
static void look_up(const Model *m, const Step *step, int token, float *to) {
    const bf16 *from = step->embedded ? step->embedded + (int64_t)token * m->hidden
                                      : m->embedding + step->token_ids[token] * m->hidden;
    if (m->embedding_codes && !step->embedded) {
        expand_column(m->embedding_codes, m->hidden, (int)step->token_ids[token], to);
        return;
    }
    for (int i = 0; i < m->hidden; i += TILE) _mm512_storeu_ps(to + i, load_bf16(from + i));
}

/* One token to what the first layer reads. */
static void embed(const Model *m, const Step *step, int token, float *to) {
    const int64_t place = (step->positions[token] + m->first_position) * m->hidden;
    const __m512 factor = _mm512_set1_ps(m->embedding_multiplier);
    look_up(m, step, token, to);
    for (int i = 0; i < m->hidden; i += TILE) {
        __m512 x = _mm512_mul_ps(_mm512_loadu_ps(to + i), factor);
        if (m->places) x = _mm512_add_ps(x, load_bf16(m->places + place + i));
        _mm512_storeu_ps(to + i, x);
    }
    if (m->embedding_norm.kind) normalise_in_place(&m->embedding_norm, to, m->hidden);
}

/* What the head reads of a row. */
static void norm_sample(const Walk *w, int sample) {
    const Model *m = w->model;
    bf16 *to = w->buffers.normed + (int64_t)sample * m->hidden;
    const int row = (int)w->step->sample_rows[sample];
    normalise(&m->norm, row_of(w->buffers.residual, w, row), m->hidden, to);
    if (w->step->states)
        memcpy(w->step->states + (int64_t)sample * m->hidden, to, m->hidden * sizeof(bf16));
}

/* `last`: the last layer. */
static void compute_logits(Walk *w, const Layer *last) {
    const Model *m = w->model;
    const Product product = {
        .left = w->buffers.normed,
        .rows = w->step->samples,
        .depth = m->hidden,
        .weight = m->head,
        .finish = {.kind = STORE,
                   .floats = w->step->logits,
                   .bias = m->head_bias,
                   .multiplier = m->logit_multiplier,
                   .cap = m->logit_cap,
                   .width = m->vocabulary},
    };
    if (last->after_mlp.kind != NO_NORM)
        for (Work work = begin_short(w, w->step->tokens); take(&work); kept(&work))
            take_in(w, last, &last->after_mlp, work.piece);
    for (Work work = begin_short(w, w->step->samples); take(&work); kept(&work))
        norm_sample(w, work.piece);
    multiply(w, product);
}

static void compute(const Model *m, const Layer *layers, const Step *step, int thread, Team *team) {
    Walk walk = {.model = m, .step = step, .team = team, .thread = thread};
    lay_out(m, layers, step, thread, step->scratch, &walk.buffers);
    if (m->has_amx) configure_tiles(step->tokens < TILE ? step->tokens : TILE);
    for (Work work = begin_short(&walk, step->tokens); take(&work); kept(&work))
        embed(m, step, work.piece, row_of(walk.buffers.residual, &walk, work.piece));
    for (int index = 0; index < m->layers; index++) {
        walk.adapters = step->adapters ? step->adapters + index : 0;
        compute_layer(&walk, layers + index, index ? layers + index - 1 : 0);
    }
    compute_logits(&walk, layers + m->layers - 1);
    if (m->has_amx) _tile_release();
}

/* If there are fewer threads than the model's, they do all that there is to do. */
void decode(const Model *model, const Layer *layers, const Step *step) {
    Seat seats[model->threads];
    Team team = {.threads = model->threads, .patience = PATIENCE, .seats = seats};
    memset(seats, 0, sizeof seats);
#pragma omp parallel num_threads(model->threads)
    compute(model, layers, step, omp_get_thread_num(), &team);
}

/* A layer by itself, for models whose code is not ours: see alone.h. */
typedef struct {
    const Layer *layer;
    const Step *step;
    const bf16 *from; /* [tokens, hidden] */
    char *scratch;    /* scratch_bytes(model, layer, tokens, 0), of a model of that layer alone */
    bf16 *to;         /* [tokens, hidden] */
} LayerBlock;

static void compute_alone(const Model *m, const LayerBlock *given, int thread, Team *team) {
    const int hidden = m->hidden, tokens = given->step->tokens;
    Walk walk = {.model = m, .step = given->step, .team = team, .thread = thread};
    lay_out(m, given->layer, given->step, thread, given->scratch, &walk.buffers);
    if (m->has_amx) configure_tiles(tokens < TILE ? tokens : TILE);
    for (Work work = begin_short(&walk, tokens); take(&work); kept(&work)) {
        const bf16 *from = given->from + (int64_t)work.piece * hidden;
        float *row = row_of(walk.buffers.residual, &walk, work.piece);
        for (int i = 0; i < hidden; i += TILE) _mm512_storeu_ps(row + i, load_bf16(from + i));
    }
    compute_layer(&walk, given->layer, 0);
    for (Work work = begin_short(&walk, tokens); take(&work); kept(&work)) {
        const float *row = row_of(walk.buffers.residual, &walk, work.piece);
        bf16 *to = given->to + (int64_t)work.piece * hidden;
        take_in(&walk, given->layer, &given->layer->after_mlp, work.piece);
        for (int i = 0; i < hidden; i += TILE) store_bf16(to + i, _mm512_loadu_ps(row + i));
    }
    if (m->has_amx) _tile_release();
}

void layer_alone(const Model *model, const LayerBlock *given) {
    if (!given->step->tokens) return;
    Seat seats[model->threads];
    Team team = {.threads = model->threads, .patience = PATIENCE, .seats = seats};
    memset(seats, 0, sizeof seats);
#pragma omp parallel num_threads(model->threads)
    compute_alone(model, given, omp_get_thread_num(), &team);
}

int64_t scratch_bytes(const Model *model, const Layer *layers, int32_t tokens, int32_t samples) {
    Buffers buffers;
    const Step step = {.tokens = tokens, .samples = samples};
    return lay_out(model, layers, &step, 0, (char *)0, &buffers) - (char *)0;
}

/* Of all structures of model.h that others fill in: they must have the same. */
int32_t structure_bytes(void) {
    return (int32_t)(sizeof(Model) + sizeof(Layer) + sizeof(Mlp) + sizeof(Step) + sizeof(Adapters) +
                     sizeof(Added) + sizeof(Matrix) + sizeof(Multiplied) + sizeof(Activated) +
                     sizeof(Normed) + sizeof(Attended) + sizeof(AttentionBlock) +
                     sizeof(LayerBlock));
}

int32_t allow_tiles(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0;
}
