/* Mixtures of experts: rows are sorted by the experts that they have chosen, each of which
 * multiplies all its rows at once. models/mlps.py says what this must give. */
#pragma once
#include <float.h>
#include <string.h>

#include "products.h"
#include "walk.h"

enum { MAX_EXPERTS = 512 };
/* Wanted least of those that can be chosen. */
static const float LEAST = -1e30f;

/* The highest of `count` numbers; the first, of several. */
static inline int highest_of(const float *numbers, int count) {
    int best = 0;
    for (int i = 1; i < count; i++)
        if (numbers[i] > numbers[best]) best = i;
    return best;
}

/* The sum of the best of a group's numbers, which are lost. */
static float best_of(float *numbers, int count, int telling) {
    float sum = 0.0f;
    for (int i = 0; i < telling; i++) {
        const int best = highest_of(numbers, count);
        sum += numbers[best], numbers[best] = -INFINITY;
    }
    return sum;
}

/* Leaves only the experts of the best groups. */
static void keep_best_groups(const Router *router, float *wanted) {
    const int size = router->count / router->groups;
    float sums[MAX_EXPERTS], left[MAX_EXPERTS];
    int is_kept[MAX_EXPERTS] = {0};
    memcpy(left, wanted, router->count * sizeof(float));
    for (int group = 0; group < router->groups; group++)
        sums[group] = best_of(left + group * size, size, router->telling);
    for (int i = 0; i < router->active_groups; i++) {
        const int best = highest_of(sums, router->groups);
        is_kept[best] = 1, sums[best] = -INFINITY;
    }
    for (int i = 0; i < router->count; i++)
        if (!is_kept[i / size]) wanted[i] = -FLT_MAX; /* yet more than what was chosen before */
}

/* A router's logits to scores. */
static void score_experts(const Router *router, const float *logits, float *scores) {
    const float most = logits[highest_of(logits, router->count)];
    float total = 0.0f;
    for (int i = 0; i < router->count; i++) {
        scores[i] = router->is_sigmoid ? 1.0f / (1.0f + expf(-logits[i])) : expf(logits[i] - most);
        total += scores[i];
    }
    if (!router->is_sigmoid)
        for (int i = 0; i < router->count; i++) scores[i] /= total;
}

/* One token's experts and their shares. */
static void choose(const Router *router, const float *logits, int32_t *experts, float *shares) {
    float scores[MAX_EXPERTS], wanted[MAX_EXPERTS], total = 0.0f;
    score_experts(router, logits, scores);
    for (int i = 0; i < router->count; i++)
        wanted[i] = scores[i] + (router->correction ? router->correction[i] : 0.0f);
    /* Tiles have as many rows as there are tokens, at most: nobody chooses one twice, whatever its
     * numbers are. NaN, which is above nothing, would win each time where it stands first. */
    for (int i = 0; i < router->count; i++)
        if (!(wanted[i] >= LEAST)) wanted[i] = LEAST;
    if (router->groups > 1) keep_best_groups(router, wanted);
    for (int i = 0; i < router->active; i++) {
        experts[i] = highest_of(wanted, router->count);
        shares[i] = scores[experts[i]];
        wanted[experts[i]] = -INFINITY;
        total += shares[i];
    }
    /* The least is DeepSeek's, against a division by 0. */
    const float by = router->is_normalised ? fmaxf(total, 1e-20f) : 1.0f;
    for (int i = 0; i < router->active; i++) shares[i] *= router->multiplier / by;
}

/* How much of the expert of all a row takes. */
static float share_of_all(const Router *router, const bf16 *row, int size) {
    if (!router->shared) return 1.0f;
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < size; i += 32)
        sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_loadu_si512(row + i),
                               (__m512bh)_mm512_loadu_si512(router->shared + i));
    return 1.0f / (1.0f + expf(-_mm512_reduce_add_ps(sum)));
}

/* Rows of all tokens and their experts, by expert. */
static void sort_rows(const Router *router, int tokens, Choice *choice) {
    int32_t next[MAX_EXPERTS + 1] = {0};
    const int total = tokens * router->active;
    for (int i = 0; i < total; i++) next[choice->experts[i] + 1]++;
    for (int expert = 0; expert < router->count; expert++) next[expert + 1] += next[expert];
    memcpy(choice->starts, next, (router->count + 1) * sizeof *next);
    for (int i = 0; i < total; i++) {
        const int row = next[choice->experts[i]]++;
        choice->places[row] = i / router->active;
        choice->shares[row] = choice->scores[i];
    }
}

static void choose_all(Walk *w, const Router *router, const bf16 *states) {
    const Choice *choice = &w->buffers.choice;
    const int64_t width = panels_of(router->count) * PANEL, size = w->model->hidden;
    Work work = begin_short(w, w->step->tokens);
    for (; take(&work); kept(&work)) {
        const int64_t row = work.piece;
        choose(router, choice->logits + row * width, choice->experts + row * router->active,
               choice->scores + row * router->active);
        choice->of_shared[row] = share_of_all(router, states + row * size, (int)size);
    }
}

/* From what the MLP reads to each expert's rows, side by side. */
static void gather_rows(Walk *w, const Layer *layer, const bf16 *states) {
    const Router *router = &layer->router;
    Choice *choice = &w->buffers.choice;
    const int size = w->model->hidden, tokens = w->step->tokens;
    const int64_t width = panels_of(router->count) * PANEL;
    const Matrix weight = {
        .panels = (int32_t)panels_of(router->count), .bits = 16, .low = router->weight};
    const Product scores = {
        .left = states,
        .rows = tokens,
        .depth = size,
        .weight = &weight,
        .finish = {.kind = STORE, .floats = choice->logits, .width = width},
    };
    multiply(w, scores);
    choose_all(w, router, states);
    for (Work work = begin_short(w, 1); take(&work); kept(&work)) sort_rows(router, tokens, choice);
    for (Work work = begin_short(w, tokens * router->active); take(&work); kept(&work))
        memcpy(choice->gathered + (int64_t)work.piece * size,
               states + (int64_t)choice->places[work.piece] * size, size * sizeof(bf16));
}
