/* The step timer behind Model.profile.
 *
 * Copyright the qcomp authors. SPDX-License-Identifier: Apache-2.0
 */
#define _POSIX_C_SOURCE 200809L

#include "qcomp.h"

#include <time.h>

void qcomp_profile_step(void *profiler, int32_t step, int32_t finished) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    ((uint64_t *)profiler)[2 * step + finished] = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
