/* AMX tile instructions for machines without them: they are invalid there, and this handler of SIGILL does what they
   would have done, by the model of amx_model.h.

   Encodings: Intel SDM volume 2, LDTILECFG, TILELOADD, TDPBUSD, TILESTORED, TILEZERO, TILERELEASE. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include "amx_model.h"

/* How often each kind of instruction ran in this thread. */
int64_t amx_products(void) { return amx_ran.products; }
int64_t amx_loads(void) { return amx_ran.loads; }
int64_t amx_stores(void) { return amx_ran.stores; }

/* The general register of that number in an instruction. */
static uint64_t register_of(const greg_t* g, int number) {
  static const int names[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                 REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };
  return (uint64_t)g[names[number]];
}

static void on_illegal(int signal, siginfo_t* info, void* context) {
  (void)signal;
  (void)info;
  greg_t* g = ((ucontext_t*)context)->uc_mcontext.gregs;
  const uint8_t* at = (const uint8_t*)g[REG_RIP];
  amx_check(at[0] == 0xC4 && (at[1] & 31) == 2 && (at[2] & 0x84) == 0, "an illegal instruction that is not AMX's");
  const int r = !(at[1] & 0x80), x = !(at[1] & 0x40), b = !(at[1] & 0x20), vvvv = ~(at[2] >> 3) & 15, pp = at[2] & 3;
  const int opcode = at[3], modrm = at[4], mod = modrm >> 6, reg = (modrm >> 3 & 7) | r << 3, rm = modrm & 7;
  int length = 5;
  uint64_t address = 0, stride = 0;
  if (mod != 3) {
    int64_t moved = 0;
    int base = rm | b << 3, rip = 0;
    if (rm == 4) {
      const int sib = at[length++], index = (sib >> 3 & 7) | x << 3;
      base = (sib & 7) | b << 3;
      if (index != 4) stride = register_of(g, index) << (sib >> 6);
      amx_check(mod != 0 || (sib & 7) != 5, "an address without base");
    } else {
      rip = mod == 0 && rm == 5;
    }
    if (mod == 1) moved = (int8_t)at[length++];
    if (mod == 2 || rip) {
      int32_t wide;
      memcpy(&wide, at + length, 4);
      moved = wide;
      length += 4;
    }
    address = (uint64_t)moved + (rip ? (uint64_t)g[REG_RIP] + (uint64_t)length : register_of(g, base));
  }
  if (opcode == 0x49 && pp == 0 && mod != 3) {
    amx_loadconfig((const void*)(address + stride));
  } else if (opcode == 0x49 && pp == 0 && modrm == 0xC0) {
    amx_release();
  } else if (opcode == 0x49 && pp == 3 && mod == 3) {
    amx_zero(reg);
  } else if (opcode == 0x4B && pp == 3 && mod != 3) {
    amx_loadd(reg, (const void*)address, (ptrdiff_t)stride);
  } else if (opcode == 0x4B && pp == 2 && mod != 3) {
    amx_stored(reg, (void*)address, (ptrdiff_t)stride);
  } else if (opcode == 0x5E && pp == 1 && mod == 3) {
    amx_dpbusd(reg, rm, vvvv);
  } else {
    amx_check(0, "an instruction that no kernel has");
  }
  g[REG_RIP] += length;
}

/* From now on this process has AMX; 0 if so. */
int amx_trap(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_illegal;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  return sigaction(SIGILL, &action, NULL);
}
