/* AMX tile instructions for machines without them: they are invalid there, and this handler of SIGILL does what they
   would have done. What they refuse, and what no kernel should do, ends the process with a message.

   Encodings and meaning: Intel SDM volume 2, LDTILECFG, TILELOADD, TDPBUSD, TILESTORED, TILEZERO, TILERELEASE. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

enum { TILES = 8, ROWS = 16, BYTES = 64 };

typedef struct {
  int configured;
  int rows[TILES], bytes[TILES];
  uint8_t data[TILES][ROWS][BYTES];
} amx_state;

static __thread amx_state tiles;
/* How often each kind of instruction ran, in all threads. */
static int64_t products, loads, stores;

int64_t amx_products(void) { return products; }
int64_t amx_loads(void) { return loads; }
int64_t amx_stores(void) { return stores; }

static void check(int holds, const char* what) {
  if (holds) return;
  fprintf(stderr, "AMX traps: %s\n", what);
  abort();
}

static void load_config(const uint8_t* c) {
  check(c[0] == 1 && c[1] == 0, "the palette is not 1, or start_row is not 0");
  memset(&tiles, 0, sizeof tiles);
  for (int t = 0; t < TILES; t++) {
    const int bytes = c[16 + 2 * t] | c[17 + 2 * t] << 8, rows = c[48 + t];
    check(bytes <= BYTES && bytes % 4 == 0 && rows <= ROWS && (rows == 0) == (bytes == 0), "a tile of no known shape");
    tiles.rows[t] = rows;
    tiles.bytes[t] = bytes;
  }
  tiles.configured = 1;
}

static void multiply(int sum, int a, int b) {
  check(tiles.bytes[a] / 4 == tiles.rows[b], "columns of pixels and rows of weights differ");
  check(tiles.rows[a] == tiles.rows[sum] && tiles.bytes[b] == tiles.bytes[sum], "sums do not fit their operands");
  for (int m = 0; m < tiles.rows[sum]; m++) {
    for (int n = 0; n < tiles.bytes[sum] / 4; n++) {
      int32_t total;
      memcpy(&total, &tiles.data[sum][m][4 * n], 4);
      for (int k = 0; k < tiles.bytes[a]; k++)
        total = (int32_t)((uint32_t)total + (uint32_t)(tiles.data[a][m][k] * (int8_t)tiles.data[b][k / 4][4 * n + k % 4]));
      memcpy(&tiles.data[sum][m][4 * n], &total, 4);
    }
  }
  __atomic_fetch_add(&products, 1, __ATOMIC_RELAXED);
}

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
  check(at[0] == 0xC4 && (at[1] & 31) == 2 && (at[2] & 0x84) == 0, "an illegal instruction that is not AMX's");
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
      check(mod != 0 || (sib & 7) != 5, "an address without base");
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
    load_config((const uint8_t*)(address + stride));
  } else if (opcode == 0x49 && pp == 0 && modrm == 0xC0) {
    tiles.configured = 0;
  } else {
    check(tiles.configured && reg < TILES && tiles.rows[reg] > 0, "a tile is used without a configuration");
    if (opcode == 0x49 && pp == 3 && mod == 3) {
      memset(tiles.data[reg], 0, sizeof tiles.data[reg]);
    } else if (opcode == 0x4B && (pp == 3 || pp == 2) && mod != 3) {
      __atomic_fetch_add(pp == 3 ? &loads : &stores, 1, __ATOMIC_RELAXED);
      for (int row = 0; row < tiles.rows[reg]; row++) {
        void* const line = (void*)(address + (uint64_t)row * stride);
        if (pp == 3)
          memcpy(tiles.data[reg][row], line, (size_t)tiles.bytes[reg]);
        else
          memcpy(line, tiles.data[reg][row], (size_t)tiles.bytes[reg]);
      }
    } else if (opcode == 0x5E && pp == 1 && mod == 3) {
      check(vvvv < TILES && rm != reg && vvvv != reg && rm != vvvv, "a product of a tile with itself");
      multiply(reg, rm, vvvv);
    } else {
      check(0, "an instruction that no kernel has");
    }
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
