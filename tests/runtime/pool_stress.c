/* Drives the thread pool through awkward task counts, pauses, nesting, rival submitters and a fork.
 * Usage: pool_stress THREADS ROUNDS. Prints "ok" and returns 0, or says what went wrong and returns 1. */
#define _GNU_SOURCE
#include "qcomp.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST 4096

static void *pool;
static int32_t rounds;

typedef struct job {
    _Atomic int32_t seen[MOST];
    int32_t plain[MOST]; /* written by a task, read after the loop: needs the pool's ordering */
    int32_t stamp;
} job;

static void mark(void *context, int32_t task) {
    job *j = context;
    atomic_fetch_add_explicit(&j->seen[task], 1, memory_order_relaxed);
    j->plain[task] = j->stamp + task;
}

static void inner(void *context, int32_t task) { ((int32_t *)context)[task] = task + 1; }

static void outer(void *context, int32_t task) {
    int32_t results[17] = {0};
    qcomp_pool_parallel_for(pool, inner, results, 17);
    int32_t sum = 0;
    for (int i = 0; i < 17; i++) sum += results[i];
    if (sum == 153) mark(context, task);
}

static int check(job *j, qcomp_task_fn fn, int32_t tasks, int32_t stamp) {
    memset(j->seen, 0, sizeof j->seen);
    j->stamp = stamp;
    qcomp_pool_parallel_for(pool, fn, j, tasks);
    for (int32_t i = 0; i < MOST; i++) {
        int32_t expected = i < tasks;
        if (j->seen[i] != expected || (expected && j->plain[i] != stamp + i)) {
            printf("tasks %d: task %d ran %d times\n", tasks, i, j->seen[i]);
            return 1;
        }
    }
    return 0;
}

static void *submit(void *argument) {
    static const int32_t awkward[] = {-1, 0, 1, 2, 3, 4, 5, 7, 8, 9, 13, 31, 64, 65, 97, 1000, MOST};
    const int32_t kinds = sizeof awkward / sizeof awkward[0];
    uint32_t random = (uint32_t)(uintptr_t)argument * 2654435761u + 1;
    job *j = calloc(1, sizeof(job));
    intptr_t bad = 0;
    for (int32_t r = 0; r < rounds && !bad; r++) {
        random = random * 1664525u + 1013904223u;
        uint32_t dice = random >> 16;
        bad = check(j, dice % 5 ? mark : outer, awkward[dice % (uint32_t)kinds], r);
        if (dice % 1999 == 0) usleep(1500); /* long enough for the workers to fall asleep */
    }
    free(j);
    return (void *)bad;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int32_t threads = atoi(argv[1]);
    rounds = atoi(argv[2]);
    qcomp_pool_parallel_for(NULL, inner, (int32_t[3]){0}, 3);
    qcomp_pool_destroy(NULL);
    for (int i = 0; i < 50; i++) qcomp_pool_destroy(qcomp_pool_create(threads)); /* before any job */

    pool = qcomp_pool_create(threads);
    intptr_t bad = (intptr_t)submit((void *)1);

    pthread_t rivals[3];
    for (intptr_t i = 0; i < 3; i++) pthread_create(&rivals[i], NULL, submit, (void *)(i + 2));
    for (int i = 0; i < 3; i++) {
        void *result;
        pthread_join(rivals[i], &result);
        bad |= (intptr_t)result;
    }

    usleep(3000);
    rounds = 100;
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        bad |= (intptr_t)submit((void *)9);
        qcomp_pool_destroy(pool);
        _exit(bad != 0);
    }
    int status = 1;
    waitpid(child, &status, 0);
    if (status) printf("after fork: status %d\n", status);
    bad |= status | (intptr_t)submit((void *)10);
    qcomp_pool_destroy(pool);
    if (!bad) puts("ok");
    return bad != 0;
}
