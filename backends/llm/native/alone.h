/* Parts of a step by themselves, for models whose code is not ours: what they compute between is
 * theirs. Each is a walk of its own, so threads meet at its end. */
#pragma once
#include "attention_pieces.h"
#include "heads.h"
#include "norms.h"
#include "products.h"

/* What one part of a step is told. native/structures.py has the same. */
typedef struct {
    int32_t rows, depth;
    int64_t width; /* columns, to whole panels */
    const Matrix *weight;
    const bf16 *bias;
    const bf16 *left; /* [rows, depth], and where there are more than 16, to whole tiles */
    bf16 *to;         /* [rows, width] */
} Multiplied;

typedef struct {
    int32_t rows, hidden;
    const Mlp *mlp;
    const bf16 *left;
    bf16 *activated; /* [rows, and to whole tiles as many more, inner] */
    bf16 *to;        /* [rows, hidden] */
} Activated;

typedef struct {
    const Norm *norm;
    int32_t rows, size;
    const bf16 *from; /* [rows, size] */
    bf16 *to;
} Normed;

typedef struct {
    const Layer *layer;
    const Step *step;  /* what attention reads of it */
    const bf16 *query; /* [tokens, heads, head size to whole tiles of 32], and to whole tiles where
                          a sequence has 16 or more */
    const bf16 *key, *value; /* [tokens, kv_heads, head size] */
    bf16 *to;                /* [tokens, heads, head size] */
} Attended;

/* An attention and the products around it. */
typedef struct {
    const Layer *layer;
    const Step *step;
    int32_t hidden;
    const bf16 *left; /* [tokens, hidden], and where there are more than 16, to whole tiles */
    float *qkv;       /* [tokens, (heads + 2 kv_heads) * head size] */
    bf16 *query;      /* as in Attended */
    bf16 *attended;   /* [tokens, and to whole tiles as many more, heads * head size] */
    bf16 *to;         /* [tokens, hidden] */
} AttentionBlock;

static void compute_mlp(const Model *model, const Activated *given, int thread, Team *team) {
    const Mlp *mlp = given->mlp;
    Walk walk = {.model = model, .team = team, .thread = thread};
    const Product into = {
        .left = given->left,
        .rows = given->rows,
        .depth = given->hidden,
        .weight = mlp->into,
        .finish = {.kind = GATE,
                   .activation = mlp->activation,
                   .halves = given->activated,
                   .bias = mlp->into_bias,
                   .width = mlp->inner},
    };
    const Product down = {
        .left = given->activated,
        .rows = given->rows,
        .depth = mlp->inner,
        .weight = mlp->down,
        .finish = {.kind = ROUND,
                   .halves = given->to,
                   .bias = mlp->down_bias,
                   .width = given->hidden},
    };
    if (model->has_amx) configure_tiles(given->rows < TILE ? given->rows : TILE);
    multiply(&walk, into);
    multiply(&walk, down);
    if (model->has_amx) _tile_release();
}

static void compute_product(const Model *model, const Multiplied *given, int thread, Team *team) {
    Walk walk = {.model = model, .team = team, .thread = thread};
    const Product product = {
        .left = given->left,
        .rows = given->rows,
        .depth = given->depth,
        .weight = given->weight,
        .finish = {.kind = ROUND, .halves = given->to, .bias = given->bias, .width = given->width},
    };
    if (model->has_amx) configure_tiles(given->rows < TILE ? given->rows : TILE);
    multiply(&walk, product);
    if (model->has_amx) _tile_release();
}

static void compute_attention(const Model *model, const Attended *given, int thread, Team *team) {
    const Layer *layer = given->layer;
    const int64_t size = (int64_t)layer->kv_heads * layer->head_dim;
    Walk walk = {.model = model, .step = given->step, .team = team, .thread = thread};
    walk.buffers.query = (bf16 *)given->query;
    walk.buffers.attended = given->to;
    for (Work work = begin_short(&walk, given->step->tokens); take(&work); kept(&work)) {
        const int64_t slot = given->step->slots[work.piece] * size, row = work.piece * size;
        memcpy(kept_at(layer, layer->keys, slot), given->key + row, size * sizeof(bf16));
        memcpy(kept_at(layer, layer->values, slot), given->value + row, size * sizeof(bf16));
    }
    if (model->has_amx) configure_tiles(TILE);
    attend(&walk, layer);
    if (model->has_amx) _tile_release();
}

static void compute_block(const Model *model, const AttentionBlock *given, int thread, Team *team) {
    const Layer *layer = given->layer;
    const int rows = given->step->tokens;
    Walk walk = {.model = model, .step = given->step, .team = team, .thread = thread};
    walk.buffers.qkv = given->qkv;
    walk.buffers.query = given->query;
    walk.buffers.attended = given->attended;
    const Product into = {
        .left = given->left,
        .rows = rows,
        .depth = given->hidden,
        .weight = layer->qkv,
        .finish = {.kind = STORE,
                   .floats = given->qkv,
                   .bias = layer->qkv_bias,
                   .width = (int64_t)(layer->heads + 2 * layer->kv_heads) * layer->head_dim},
    };
    const Product output = {
        .left = given->attended,
        .rows = rows,
        .depth = layer->heads * layer->head_dim,
        .weight = layer->output,
        .finish = {.kind = ROUND,
                   .halves = given->to,
                   .bias = layer->output_bias,
                   .width = given->hidden},
    };
    if (model->has_amx) configure_tiles(rows < TILE ? rows : TILE);
    multiply(&walk, into);
    for (Work work = begin_short(&walk, rows); take(&work); kept(&work))
        place_token(layer, given->step, &walk.buffers, work.piece);
    attend(&walk, layer);
    multiply(&walk, output);
    if (model->has_amx) _tile_release();
}

/* Few rows are done before another thread has begun. */
void norm_alone(const Model *model, const Normed *given) {
    const int size = given->size;
#pragma omp parallel for num_threads(model->threads) if (given->rows > 64)
    for (int row = 0; row < given->rows; row++) {
        float wide[size];
        const int64_t first = (int64_t)row * size;
        for (int i = 0; i < size; i += TILE)
            _mm512_storeu_ps(wide + i, load_bf16(given->from + first + i));
        normalise(given->norm, wide, size, given->to + first);
    }
}

void multiply_alone(const Model *model, const Multiplied *given) {
    if (!given->rows) return;
    Seat seats[model->threads];
    Team team = {.threads = model->threads, .patience = PATIENCE, .seats = seats};
    memset(seats, 0, sizeof seats);
#pragma omp parallel num_threads(model->threads)
    compute_product(model, given, omp_get_thread_num(), &team);
}

void mlp_alone(const Model *model, const Activated *given) {
    if (!given->rows) return;
    Seat seats[model->threads];
    Team team = {.threads = model->threads, .patience = PATIENCE, .seats = seats};
    memset(seats, 0, sizeof seats);
#pragma omp parallel num_threads(model->threads)
    compute_mlp(model, given, omp_get_thread_num(), &team);
}

void attend_alone(const Model *model, const Attended *given) {
    Seat seats[model->threads];
    Team team = {.threads = model->threads, .patience = PATIENCE, .seats = seats};
    memset(seats, 0, sizeof seats);
#pragma omp parallel num_threads(model->threads)
    compute_attention(model, given, omp_get_thread_num(), &team);
}

void block_alone(const Model *model, const AttentionBlock *given) {
    if (!given->step->tokens) return;
    Seat seats[model->threads];
    Team team = {.threads = model->threads, .patience = PATIENCE, .seats = seats};
    memset(seats, 0, sizeof seats);
#pragma omp parallel num_threads(model->threads)
    compute_block(model, given, omp_get_thread_num(), &team);
}
