/* Runs a compiled model from C: reads raw input tensors from files, writes raw output tensors to files.
 *
 * Copyright the qcomp authors. SPDX-License-Identifier: Apache-2.0
 *
 *     run_model MODEL.so THREADS INPUT.bin ... -- OUTPUT.bin=BYTES ...
 *
 * Inputs and outputs come in the model's order (`qcomp inspect MODEL.so` prints names, shapes and dtypes). Opened at
 * run time:        cc -I include run_model.c -ldl -o run_model
 * Linked instead:  cc -I include -DLINKED run_model.c model.so -Wl,-rpath,'$ORIGIN' -o run_model   (MODEL.so is then
 * the model that was linked, whatever the argument says).
 */
#define _POSIX_C_SOURCE 200809L

#include "qcomp.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_TENSORS 16

static void fail(const char *what, const char *which) {
    fprintf(stderr, "run_model: %s: %s\n", which, what);
    exit(2);
}

static void *allocate(size_t align, size_t bytes) {
    void *memory = NULL;
    if (posix_memalign(&memory, align < 64 ? 64 : align, bytes ? bytes : 1)) fail("out of memory", "allocation");
    return memory;
}

static void *read_whole(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) fail("cannot be read", path);
    long bytes = ftell(file);
    void *data = allocate(64, (size_t)bytes);
    rewind(file);
    if (fread(data, 1, (size_t)bytes, file) != (size_t)bytes) fail("cannot be read", path);
    fclose(file);
    return data;
}

#ifdef LINKED
#define FIND(name) name
#else
static void *library;

static void *find(const char *name) {
    void *symbol = dlsym(library, name);
    if (!symbol) fail("not a qcomp library", name);
    return symbol;
}
#define FIND(name) ((__typeof__(&name))find(#name))
#endif

int main(int argc, char **argv) {
    if (argc < 3) fail("usage: run_model MODEL.so THREADS INPUT.bin ... -- OUTPUT.bin=BYTES ...", "arguments");
#ifndef LINKED
    library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (!library) fail(dlerror(), argv[1]);
#endif
    const qcomp_model *model = FIND(qcomp_describe)();
    if (model->abi != QCOMP_ABI) fail("made for another version of qcomp.h", argv[1]);

    const void *inputs[MOST_TENSORS];
    void *outputs[MOST_TENSORS];
    const char *paths[MOST_TENSORS];
    size_t sizes[MOST_TENSORS];
    int32_t input_count = 0, output_count = 0, i = 3;
    for (; i < argc && strcmp(argv[i], "--") && input_count < MOST_TENSORS; i++)
        inputs[input_count++] = read_whole(argv[i]);
    for (i++; i < argc && output_count < MOST_TENSORS; i++, output_count++) {
        char *equals = strrchr(argv[i], '=');
        if (!equals) fail("give PATH=BYTES", argv[i]);
        *equals = 0;
        paths[output_count] = argv[i];
        sizes[output_count] = (size_t)strtoul(equals + 1, NULL, 10);
        outputs[output_count] = allocate(64, sizes[output_count]);
    }
    if (input_count != model->inputs || output_count != model->outputs) fail("wrong number of tensors", argv[1]);

    void *arena = allocate(model->arena_align, model->arena_bytes);
    qcomp_exec exec = {0};
    exec.pool = FIND(qcomp_pool_create)(atoi(argv[2]));
    exec.parallel_for = FIND(qcomp_pool_parallel_for);
    if (model->run(&exec, inputs, outputs, arena)) fail("run failed", argv[1]);
    FIND(qcomp_pool_destroy)(exec.pool);

    for (i = 0; i < output_count; i++) {
        FILE *file = fopen(paths[i], "wb");
        if (!file || fwrite(outputs[i], 1, sizes[i], file) != sizes[i] || fclose(file)) fail("cannot write", paths[i]);
    }
    return 0;
}
