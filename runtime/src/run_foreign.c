/* Runs an artifact inside an emulator: loads it, reads the inputs of each sample from standard input and writes its
 * outputs to standard output, raw and in the model's order.
 *
 *     run_foreign MODEL.so THREADS SAMPLES INPUT_BYTES ... -- OUTPUT_BYTES ...
 */
#define _POSIX_C_SOURCE 200809L

#include "qcomp.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_TENSORS 1024

static void *library;

static void fail(const char *what, const char *which) {
    fprintf(stderr, "%s: %s\n", which, what);
    exit(2);
}

static void *find(const char *name) {
    void *symbol = dlsym(library, name);
    if (!symbol) fail("not a qcomp library", name);
    return symbol;
}
#define FIND(name) ((__typeof__(&name))find(#name))

static void *allocate(size_t align, size_t bytes) {
    void *memory = NULL;
    if (posix_memalign(&memory, align < 64 ? 64 : align, bytes ? bytes : 1)) fail("out of memory", "allocation");
    return memory;
}

int main(int argc, char **argv) {
    static void *inputs[MOST_TENSORS], *outputs[MOST_TENSORS];
    static size_t input_bytes[MOST_TENSORS], output_bytes[MOST_TENSORS];
    int32_t input_count = 0, output_count = 0, i = 4;
    long sample, samples;
    const qcomp_model *model;
    qcomp_exec exec = {0};
    void *arena;

    if (argc < 5) fail("MODEL.so THREADS SAMPLES INPUT_BYTES ... -- OUTPUT_BYTES ...", "usage");
    library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (!library) fail(dlerror(), argv[1]);
    model = FIND(qcomp_describe)();
    if (model->abi != QCOMP_ABI) fail("made for another version of qcomp.h", argv[1]);
    for (; i < argc && strcmp(argv[i], "--") && input_count < MOST_TENSORS; i++, input_count++)
        inputs[input_count] = allocate(64, input_bytes[input_count] = strtoul(argv[i], NULL, 10));
    for (i++; i < argc && output_count < MOST_TENSORS; i++, output_count++)
        outputs[output_count] = allocate(64, output_bytes[output_count] = strtoul(argv[i], NULL, 10));
    if (input_count != model->inputs || output_count != model->outputs) fail("wrong number of tensors", argv[1]);

    arena = allocate(model->arena_align, model->arena_bytes);
    exec.pool = FIND(qcomp_pool_create)(atoi(argv[2]));
    exec.parallel_for = FIND(qcomp_pool_parallel_for);
    samples = strtol(argv[3], NULL, 10);
    for (sample = 0; sample < samples; sample++) {
        for (i = 0; i < input_count; i++)
            if (fread(inputs[i], 1, input_bytes[i], stdin) != input_bytes[i]) fail("the inputs end early", argv[1]);
        if (model->run(&exec, (const void *const *)inputs, outputs, arena)) fail("run failed", argv[1]);
        for (i = 0; i < output_count; i++)
            if (fwrite(outputs[i], 1, output_bytes[i], stdout) != output_bytes[i]) fail("cannot write", argv[1]);
    }
    FIND(qcomp_pool_destroy)(exec.pool);
    return fflush(stdout) ? 2 : 0;
}
