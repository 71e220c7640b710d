/* A hand-written model in the shape that generated ones have: y = FACTOR * reversed(x) and z = clamp(3 * q), in three
 * steps; `where` reports the addresses that run was given. The second step reads what other tasks of the first wrote. */
#include "qcomp.h"
#include "tiny_metadata.h"

#ifndef FACTOR
#define FACTOR 2.0f
#endif
#define N 1000

typedef struct tensors {
    const float *x;
    const int8_t *q;
    float *y;
    int8_t *z;
    float *arena;
} tensors;

static int32_t first(int32_t task, int32_t tasks) { return (int32_t)((int64_t)N * task / tasks); }

static void scale(void *context, int32_t task) {
    tensors *t = context;
    for (int32_t i = first(task, 7); i < first(task + 1, 7); i++) t->arena[i] = FACTOR * t->x[i];
}

static void reverse(void *context, int32_t task) {
    tensors *t = context;
    for (int32_t i = first(task, 13); i < first(task + 1, 13); i++) t->y[i] = t->arena[N - 1 - i];
}

static void triple(void *context, int32_t task) {
    tensors *t = context;
    for (int32_t i = first(task, 5); i < first(task + 1, 5); i++) {
        int32_t v = 3 * t->q[i];
        t->z[i] = (int8_t)(v < -128 ? -128 : v > 127 ? 127 : v);
    }
}

static const struct {
    qcomp_task_fn fn;
    int32_t tasks;
} steps[] = {{scale, 7}, {reverse, 13}, {triple, 5}};

static int32_t run(const qcomp_exec *exec, const void *const *inputs, void *const *outputs, void *arena) {
    if (!inputs || !outputs || !arena || (uintptr_t)arena % 64) return -1;
    tensors t = {inputs[0], inputs[1], outputs[0], outputs[1], arena};
    uint64_t *where = outputs[2];
    where[0] = (uintptr_t)inputs[0];
    where[1] = (uintptr_t)inputs[1];
    where[2] = (uintptr_t)outputs[0];
    where[3] = (uintptr_t)arena;
    for (int32_t s = 0; s < 3; s++) {
        if (exec && exec->on_step) exec->on_step(exec->profiler, s, 0);
        if (exec && exec->parallel_for)
            exec->parallel_for(exec->pool, steps[s].fn, &t, steps[s].tasks);
        else
            for (int32_t task = 0; task < steps[s].tasks; task++) steps[s].fn(&t, task);
        if (exec && exec->on_step) exec->on_step(exec->profiler, s, 1);
    }
    return 0;
}

static const qcomp_model model = {QCOMP_ABI, 3, 2, 3, 4096, 64, METADATA, sizeof METADATA - 1, run};

#ifndef LEVELS
const qcomp_model *qcomp_describe(void) { return &model; }
#else
/* The same as two levels; the better one takes a larger arena and is picked if PICK is 0. */
static const qcomp_model better = {QCOMP_ABI, 3, 2, 3, 8192, 64, METADATA, sizeof METADATA - 1, run};
static const qcomp_model *const levels[] = {&better, &model};

const qcomp_model *qcomp_describe(void) { return levels[PICK]; }
const qcomp_model *qcomp_level(int32_t index) { return index < 0 || index > 1 ? 0 : levels[index]; }
const char *qcomp_level_name(int32_t index) { return index < 0 || index > 1 ? 0 : index ? "plain" : "better"; }
int32_t qcomp_level_runs(int32_t index) { return index >= PICK && index <= 1; }
#endif
