/* A parallel-for thread pool with low latency.
 *
 * Copyright the qcomp authors. SPDX-License-Identifier: Apache-2.0
 *
 * A job is split into one contiguous share of tasks per thread, so that the same thread meets the same rows in step
 * after step and finds them in its own cache. A thread takes tasks from the front of its share, then from the back of
 * the others' shares: a late or preempted thread delays nobody. The job is over when every task is done, whether or
 * not every thread took part.
 *
 * A share is one 64-bit word, so a claim is one compare-and-swap. A successful claim proves that the job it belongs
 * to is still open, which is why `fn` and `context` may be plain fields: they are written before the share is
 * published and not again before its last task is counted. A claim that was prepared for an older job and succeeds
 * on an equal word of a newer one is a valid claim of the newer.
 *
 * A share and what is to be called lie in one cache line, and an idle thread watches that line of its own: a job costs
 * it one miss before it can start. The epoch, which all watch before they sleep, it looks at now and then only.
 */
#define _GNU_SOURCE /* CPU affinity */

#include "qcomp.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define LINE 64
#define MAX_THREADS 1024

/* How long an idle thread keeps looking before it sleeps. Waking a sleeper costs tens of microseconds, which is as
 * long as a small layer takes; the gap between two layers of one run should never cost that. */
#ifndef QCOMP_SPIN_NANOSECONDS
#define QCOMP_SPIN_NANOSECONDS 1000000
#endif
#define ROUNDS_PER_CLOCK_READ 64
#define ROUNDS_BEFORE_YIELDING 1024

typedef struct share {
    _Alignas(LINE) _Atomic uint64_t range; /* low half: first task left, high half: one past the last */
    qcomp_task_fn fn; /* written by the submitter between jobs, as the next */
    void *context;
} share;

typedef struct worker {
    struct pool *pool;
    int32_t index;
    pthread_t thread;
} worker;

typedef struct pool {
    int32_t threads; /* with the submitter; fixed after creation */
    int32_t avoided_cpu; /* the one that the workers are kept off */
    pid_t owner;
    worker *workers;
    share *shares;
    pthread_mutex_t mutex;
    pthread_cond_t job_ready, job_done;

    _Alignas(LINE) _Atomic uint32_t epoch; /* changes with every job */
    _Atomic int32_t stop;
    _Alignas(LINE) _Atomic int32_t sleepers; /* workers at job_ready */
    _Atomic int32_t waiting;                 /* the submitter is at job_done */
    _Atomic int32_t busy;
    _Alignas(LINE) _Atomic int32_t unfinished; /* tasks of the job not yet counted as done */
} pool;

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ __volatile__("yield" ::: "memory");
#endif
}

typedef struct spin {
    uint32_t rounds;
    uint64_t deadline;
} spin;

/* One round of waiting; 0 once the time is up. After a first while it offers its core to others at each clock read,
 * so that more threads than cores do not starve the ones that have work. */
static int spin_round(spin *s) {
    pause_briefly();
    if (++s->rounds % ROUNDS_PER_CLOCK_READ) return 1;
    if (s->rounds > ROUNDS_BEFORE_YIELDING) sched_yield();
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t now = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    if (!s->deadline) s->deadline = now + QCOMP_SPIN_NANOSECONDS;
    return now < s->deadline;
}

static uint64_t pack(uint32_t first, uint32_t end) { return (uint64_t)end << 32 | first; }

/* Takes one task, from the front for the owner and from the back for others; -1 if none is left. */
static int32_t claim(share *s, int owner) {
    uint64_t range = atomic_load_explicit(&s->range, memory_order_relaxed);
    for (;;) {
        uint32_t first = (uint32_t)range, end = (uint32_t)(range >> 32);
        if (first >= end) return -1;
        uint64_t rest = owner ? pack(first + 1, end) : pack(first, end - 1);
        if (atomic_compare_exchange_weak_explicit(&s->range, &range, rest, memory_order_acquire, memory_order_relaxed))
            return (int32_t)(owner ? first : end - 1);
    }
}

/* Does whatever is left of the current job, then reports it: tasks are counted once per visit, not one by one. */
static void work(pool *p, int32_t self) {
    int32_t done = 0;
    for (int32_t k = 0; k < p->threads; k++) {
        share *s = &p->shares[(self + k) % p->threads];
        int32_t task;
        while ((task = claim(s, k == 0)) >= 0) {
            s->fn(s->context, task);
            done++;
        }
    }
    if (!done || atomic_fetch_sub(&p->unfinished, done) != done) return;
    if (atomic_load(&p->waiting)) {
        pthread_mutex_lock(&p->mutex);
        pthread_cond_signal(&p->job_done);
        pthread_mutex_unlock(&p->mutex);
    }
}

/* Both sleeps below announce themselves before they look a last time, and both wakers change the state before they
 * look for sleepers; all four accesses are sequentially consistent, so no wake-up is lost. */
static void await_job(pool *p, int32_t self, uint32_t seen) {
    spin s = {0, 0};
    do {
        uint64_t range = atomic_load_explicit(&p->shares[self].range, memory_order_relaxed);
        if ((uint32_t)range < (uint32_t)(range >> 32)) return;
        if (s.rounds % ROUNDS_PER_CLOCK_READ == 0 && atomic_load_explicit(&p->epoch, memory_order_acquire) != seen)
            return;
    } while (spin_round(&s));
    pthread_mutex_lock(&p->mutex);
    atomic_fetch_add(&p->sleepers, 1);
    while (atomic_load(&p->epoch) == seen) pthread_cond_wait(&p->job_ready, &p->mutex);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->mutex);
}

static void await_done(pool *p) {
    spin s = {0, 0};
    do {
        if (atomic_load_explicit(&p->unfinished, memory_order_acquire) == 0) return;
    } while (spin_round(&s));
    pthread_mutex_lock(&p->mutex);
    atomic_store(&p->waiting, 1);
    while (atomic_load(&p->unfinished) != 0) pthread_cond_wait(&p->job_done, &p->mutex);
    atomic_store(&p->waiting, 0);
    pthread_mutex_unlock(&p->mutex);
}

/* A scheduler likes to wake a thread on the waker's own CPU, where a worker is of no use: it was seen to sit there,
 * behind the caller, for ten milliseconds before it was moved. The workers may use every CPU that the caller may,
 * except the one it is on. Called before sleepers are woken, so that it costs a spinning pool nothing. */
static void keep_off_this_cpu(pool *p) {
#if defined(__linux__)
    int cpu = sched_getcpu();
    cpu_set_t allowed;
    if (cpu < 0 || cpu == p->avoided_cpu || sched_getaffinity(0, sizeof allowed, &allowed)) return;
    p->avoided_cpu = cpu;
    CPU_CLR(cpu, &allowed);
    if (CPU_COUNT(&allowed) == 0) return;
    for (int32_t i = 1; i < p->threads; i++)
        if (p->workers[i].pool) pthread_setaffinity_np(p->workers[i].thread, sizeof allowed, &allowed);
#else
    (void)p;
#endif
}

/* Wakes as many sleepers as could be of use; help is optional, so the rest may sleep on. In a forked child the
 * sleepers are a memory of the parent's, and the mutex may be held by one of them for ever. */
static void wake(pool *p, int32_t wanted) {
    int32_t sleepers = atomic_load(&p->sleepers);
    if (sleepers == 0 || getpid() != p->owner) return;
    keep_off_this_cpu(p);
    pthread_mutex_lock(&p->mutex);
    if (wanted >= sleepers)
        pthread_cond_broadcast(&p->job_ready);
    else
        for (int32_t i = 0; i < wanted; i++) pthread_cond_signal(&p->job_ready);
    pthread_mutex_unlock(&p->mutex);
}

static void *worker_main(void *argument) {
    worker *self = argument;
    pool *p = self->pool;
    for (;;) {
        /* Read before looking for work: a job published after this changes it, and await_job returns at once. */
        uint32_t seen = atomic_load(&p->epoch);
        if (atomic_load(&p->stop)) return NULL;
        work(p, self->index);
        await_job(p, self->index, seen);
    }
}

void qcomp_pool_parallel_for(void *handle, qcomp_task_fn fn, void *context, int32_t tasks) {
    pool *p = handle;
    int32_t idle = 0;
    if (tasks <= 1 || !p || p->threads == 1 || !atomic_compare_exchange_strong(&p->busy, &idle, 1)) {
        for (int32_t task = 0; task < tasks; task++) fn(context, task);
        return;
    }
    atomic_store_explicit(&p->unfinished, tasks, memory_order_relaxed);
    int32_t parts = tasks < p->threads ? tasks : p->threads;
    for (int32_t i = parts; i-- > 0;) { /* the submitter's own last: the others are waiting */
        p->shares[i].fn = fn;
        p->shares[i].context = context;
        uint64_t range = pack((uint32_t)((int64_t)tasks * i / parts), (uint32_t)((int64_t)tasks * (i + 1) / parts));
        atomic_store_explicit(&p->shares[i].range, range, memory_order_release);
    }
    atomic_fetch_add(&p->epoch, 1);
    wake(p, tasks - 1);
    work(p, 0);
    await_done(p);
    atomic_store_explicit(&p->busy, 0, memory_order_release);
}

static void *allocate(size_t bytes) {
    void *memory = NULL;
    if (posix_memalign(&memory, LINE, bytes)) return NULL;
    for (size_t i = 0; i < bytes; i++) ((char *)memory)[i] = 0;
    return memory;
}

static void release(pool *p) {
    free(p->workers);
    free(p->shares);
    free(p);
}

void *qcomp_pool_create(int32_t threads) {
    if (threads < 1) threads = 1;
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    pool *p = allocate(sizeof(pool));
    if (!p) return NULL;
    p->shares = allocate((size_t)threads * sizeof(share));
    p->workers = allocate((size_t)threads * sizeof(worker));
    if (!p->shares || !p->workers) {
        release(p);
        return NULL;
    }
    p->owner = getpid();
    p->threads = threads;
    p->avoided_cpu = -1;
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->job_ready, NULL);
    pthread_cond_init(&p->job_done, NULL);

    /* Signals belong to the program's own threads. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    /* Where the system refuses a thread, the others take over its share. */
    for (int32_t i = 1; i < threads; i++) {
        worker *w = &p->workers[i];
        w->pool = p;
        w->index = i;
        if (pthread_create(&w->thread, NULL, worker_main, w)) w->pool = NULL;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    keep_off_this_cpu(p);
    return p;
}

void qcomp_pool_destroy(void *handle) {
    pool *p = handle;
    if (!p) return;
    if (getpid() == p->owner) {
        atomic_store(&p->stop, 1);
        atomic_fetch_add(&p->epoch, 1);
        wake(p, p->threads);
        for (int32_t i = 1; i < p->threads; i++)
            if (p->workers[i].pool) pthread_join(p->workers[i].thread, NULL);
        pthread_cond_destroy(&p->job_done);
        pthread_cond_destroy(&p->job_ready);
        pthread_mutex_destroy(&p->mutex);
    }
    release(p);
}
