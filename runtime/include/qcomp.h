/* qcomp.h: the C interface of a compiled model.
 *
 * Copyright the qcomp authors. SPDX-License-Identifier: Apache-2.0
 *
 * An artifact (a shared library, or a source package) exports a function that describes the model. The model is
 * constant data and one reentrant function; it allocates nothing, keeps no state and calls no library. All memory it
 * works in is the arena that the caller hands over. Any number of threads may run the same model at the same time,
 * each with an arena of its own.
 *
 *     const qcomp_model *model = qcomp_describe();
 *     void *arena = aligned_alloc(model->arena_align, model->arena_bytes);
 *     const void *inputs[] = {image};
 *     void *outputs[] = {scores};
 *     int32_t status = model->run(NULL, inputs, outputs, arena);
 *
 * The result does not depend on the executor, the thread count or the order of tasks: it is the same, bit for bit.
 */
#ifndef QCOMP_H
#define QCOMP_H

#include <stdint.h>

#define QCOMP_ABI 1 /* grows when a structure or function below changes its meaning */

#if defined(_WIN32)
#define QCOMP_API __declspec(dllexport)
#elif defined(__GNUC__)
#define QCOMP_API __attribute__((visibility("default")))
#else
#define QCOMP_API
#endif

/* The describing function is <prefix>_describe. A library uses the default prefix; a source package defines
 * QCOMP_PREFIX as the model's name, so that one program can link several models. */
#ifndef QCOMP_PREFIX
#define QCOMP_PREFIX qcomp
#endif
#define QCOMP_JOIN_(a, b) a##b
#define QCOMP_JOIN(a, b) QCOMP_JOIN_(a, b)
#define QCOMP_DESCRIBE QCOMP_JOIN(QCOMP_PREFIX, _describe)
#define QCOMP_LEVEL QCOMP_JOIN(QCOMP_PREFIX, _level)
#define QCOMP_LEVEL_NAME QCOMP_JOIN(QCOMP_PREFIX, _level_name)
#define QCOMP_LEVEL_RUNS QCOMP_JOIN(QCOMP_PREFIX, _level_runs)

#ifdef __cplusplus
extern "C" {
#endif

/* One piece of a step. Pieces of one step touch disjoint outputs, so any order and any thread will do. */
typedef void (*qcomp_task_fn)(void *context, int32_t task);

/* How to run: every member, and the pointer to this structure itself, may be null. Without parallel_for all work
 * happens in the calling thread. */
typedef struct qcomp_exec {
    void *pool; /* handed to parallel_for as its first argument */
    /* Calls fn(context, t) exactly once for every t in [0, tasks), and returns when all of them have returned. */
    void (*parallel_for)(void *pool, qcomp_task_fn fn, void *context, int32_t tasks);
    void *profiler; /* handed to on_step as its first argument */
    /* Called by the thread that called run, before (finished = 0) and after (finished = 1) each step. */
    void (*on_step)(void *profiler, int32_t step, int32_t finished);
} qcomp_exec;

typedef struct qcomp_model {
    int32_t abi;          /* QCOMP_ABI of the compiler that made the model; check it first */
    int32_t steps;        /* number of steps that on_step reports, 0 .. steps-1 */
    int32_t inputs;       /* length of the inputs array of run */
    int32_t outputs;      /* length of the outputs array of run */
    uint64_t arena_bytes; /* size of the arena */
    uint64_t arena_align; /* its alignment in bytes, a power of two */
    const char *metadata; /* JSON, UTF-8: names, dtypes, shapes, quantization, steps (by columns); levels, if any */
    uint64_t metadata_bytes;
    /* Inputs and outputs are dense row-major arrays in the order, dtype and shape that the metadata gives, aligned
     * for their element type; outputs overlap neither each other nor an input. The arena's contents need not be
     * initialized and are not kept between calls. Returns 0, or -1 for a null pointer or a misaligned arena. */
    int32_t (*run)(const qcomp_exec *exec, const void *const *inputs, void *const *outputs, void *arena);
} qcomp_model;

/* The model: constant, valid as long as the library stays loaded. Of a model of several levels it is the best one that
 * this CPU and the operating system can run; the CPU is asked at every call. */
QCOMP_API const qcomp_model *QCOMP_DESCRIBE(void);

/* A model that was compiled for several instruction sets at once (metadata "levels") exports the functions below too;
 * other models lack them. Levels count from 0, the best first; the last one runs wherever the library loads. All give
 * the same results, and each has an arena size of its own. */

/* The name of the target that a level was compiled for, or null: there are no more levels. */
QCOMP_API const char *QCOMP_LEVEL_NAME(int32_t index);

/* A level's model, or null as above. It must not run unless QCOMP_LEVEL_RUNS says so. */
QCOMP_API const qcomp_model *QCOMP_LEVEL(int32_t index);

/* 1 if this CPU and the operating system can run the level, else 0. For a level that uses AMX it asks the system for
 * permission (qcomp_enable_amx), as describe does. */
QCOMP_API int32_t QCOMP_LEVEL_RUNS(int32_t index);

/* The functions below are the runtime's own (runtime/src). Every shared library exports them; a source package ships
 * them as files that a bare-metal build leaves out. */

/* A pool that runs tasks on `threads` threads, the caller being one of them: threads - 1 are created, none for
 * threads <= 1. More than 1024 are taken as 1024. Null only if memory is short. An idle thread spins for a millisecond
 * and then sleeps. On Linux the threads may use every CPU that the caller may, except the one it is on. */
QCOMP_API void *qcomp_pool_create(int32_t threads);

/* Ends and joins the threads. Not while a parallel_for of this pool is running. Null is allowed. */
QCOMP_API void qcomp_pool_destroy(void *pool);

/* The parallel_for of qcomp_exec. A null pool, a call from inside a task and a call while another thread's is under
 * way all run the tasks in the calling thread. After fork() the child has none of the threads: there, calls run in
 * the calling thread too, and destroy only frees memory. */
QCOMP_API void qcomp_pool_parallel_for(void *pool, qcomp_task_fn fn, void *context, int32_t tasks);

/* An on_step that notes the time: `profiler` points at uint64_t[2 * steps], and entry 2 * step + finished receives
 * the nanoseconds of a monotonic clock. */
QCOMP_API void qcomp_profile_step(void *profiler, int32_t step, int32_t finished);

/* Asks the operating system to let this process use the AMX tile registers; call it once, before running a model
 * whose metadata "isa" names an amx feature (models of several levels do it themselves). Returns 0 if granted, -1 if not. */
QCOMP_API int32_t qcomp_enable_amx(void);

#ifdef __cplusplus
}
#endif

#endif
