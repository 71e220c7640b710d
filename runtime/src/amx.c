/* Permission to use the AMX tile registers: Linux grants it per process, on request (Documentation/arch/x86/xstate.rst).
 *
 * Copyright the qcomp authors. SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE

#include "qcomp.h"

#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>

#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_XTILEDATA 18

int32_t qcomp_enable_amx(void) { return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) ? -1 : 0; }
#else
int32_t qcomp_enable_amx(void) { return -1; }
#endif
