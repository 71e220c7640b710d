/* A strict software model of the AMX tile instructions, for machines without them: included before generated code, it
   takes the place of the intrinsics. What the processor refuses with #UD or #GP, and what it would let pass but no
   kernel should do, ends the process with a message. Intel SDM volume 2: LDTILECFG, TILELOADD, TDPBUSD, TILESTORED. */
#if !defined(AMX_MODEL_H) && !defined(__ASSEMBLER__)
#define AMX_MODEL_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* as the runtime's own files have it before their first header */
#endif
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

extern int printf(const char*, ...);
extern int fflush(void*);
extern void abort(void);

enum { AMX_TILES = 8, AMX_ROWS = 16, AMX_BYTES = 64 };

typedef struct {
  int configured;
  int rows[AMX_TILES], bytes[AMX_TILES];
  uint8_t data[AMX_TILES][AMX_ROWS][AMX_BYTES];
} amx_state;

/* How many times each instruction ran in this thread. */
typedef struct {
  int64_t configs, loads, products, stores, releases;
} amx_counts;

/* One a thread, whichever file of a library asks: the tile registers outlive the calls between them. */
__attribute__((weak, visibility("hidden"))) __thread amx_state amx_tiles;
__attribute__((weak, visibility("hidden"))) __thread amx_counts amx_ran;

static inline __attribute__((unused)) void amx_check(int holds, const char* what) {
  if (holds) return;
  printf("AMX model: %s\n", what);
  fflush(NULL);
  abort();
}

static inline __attribute__((unused)) void amx_known(int tile, const char* what) {
  amx_check(amx_tiles.configured, "a tile is used without a configuration");
  amx_check(tile >= 0 && tile < AMX_TILES && amx_tiles.rows[tile] > 0, what);
}

static __attribute__((unused, noinline)) void amx_loadconfig(const void* config) {
  const uint8_t* c = (const uint8_t*)config;
  amx_check(c[0] == 1, "the palette is not 1");
  amx_check(c[1] == 0, "start_row is not 0");
  for (int i = 2; i < 16; i++) amx_check(c[i] == 0, "a reserved byte of the configuration is not 0");
  for (int i = 32; i < 48; i++) amx_check(c[i] == 0, "a tile above 7 has columns");
  for (int i = 56; i < 64; i++) amx_check(c[i] == 0, "a tile above 7 has rows");
  for (int t = 0; t < AMX_TILES; t++) {
    const int bytes = c[16 + 2 * t] | c[17 + 2 * t] << 8, rows = c[48 + t];
    amx_check(bytes <= AMX_BYTES && bytes % 4 == 0, "columns of a tile are not whole dwords of at most 64 bytes");
    amx_check(rows <= AMX_ROWS, "a tile has more than 16 rows");
    amx_check((rows == 0) == (bytes == 0), "a tile has rows without columns or columns without rows");
    amx_tiles.rows[t] = rows;
    amx_tiles.bytes[t] = bytes;
  }
  for (int t = 0; t < AMX_TILES; t++)
    for (int r = 0; r < AMX_ROWS; r++)
      for (int b = 0; b < AMX_BYTES; b++) amx_tiles.data[t][r][b] = 0;
  amx_tiles.configured = 1;
  amx_ran.configs++;
}

static __attribute__((unused, noinline)) void amx_loadd(int tile, const void* base, ptrdiff_t stride) {
  amx_known(tile, "a load of a tile that the configuration leaves out");
  for (int r = 0; r < AMX_ROWS; r++)
    for (int b = 0; b < AMX_BYTES; b++)
      amx_tiles.data[tile][r][b] = r < amx_tiles.rows[tile] && b < amx_tiles.bytes[tile]
                                       ? ((const uint8_t*)base)[r * stride + b] : 0;
  amx_ran.loads++;
}

static __attribute__((unused, noinline)) void amx_zero(int tile) {
  amx_known(tile, "a tile that the configuration leaves out is set to zero");
  for (int r = 0; r < AMX_ROWS; r++)
    for (int b = 0; b < AMX_BYTES; b++) amx_tiles.data[tile][r][b] = 0;
}

/* d += dot products of four unsigned bytes of a with four signed bytes of b; sums wrap. */
static __attribute__((unused, noinline)) void amx_dpbusd(int d, int a, int b) {
  amx_known(d, "products into a tile that the configuration leaves out");
  amx_known(a, "products of a tile that the configuration leaves out");
  amx_known(b, "products with a tile that the configuration leaves out");
  amx_check(d != a && d != b && a != b, "TDPBUSD with one tile twice");
  amx_check(amx_tiles.rows[d] == amx_tiles.rows[a], "TDPBUSD: sums and first operand differ in rows");
  amx_check(amx_tiles.bytes[d] == amx_tiles.bytes[b], "TDPBUSD: sums and second operand differ in columns");
  amx_check(amx_tiles.bytes[a] == 4 * amx_tiles.rows[b], "TDPBUSD: columns of the first are not rows of the second");
  for (int m = 0; m < amx_tiles.rows[d]; m++) {
    uint32_t sums[AMX_BYTES / 4];
    for (int n = 0; n < AMX_BYTES / 4; n++) __builtin_memcpy(&sums[n], &amx_tiles.data[d][m][4 * n], 4);
    for (int k = 0; k < amx_tiles.rows[b]; k++)
      for (int n = 0; n < amx_tiles.bytes[d] / 4; n++)
        for (int i = 0; i < 4; i++)
          sums[n] += (uint32_t)(amx_tiles.data[a][m][4 * k + i] * (int8_t)amx_tiles.data[b][k][4 * n + i]);
    for (int n = 0; n < AMX_BYTES / 4; n++) __builtin_memcpy(&amx_tiles.data[d][m][4 * n], &sums[n], 4);
  }
  amx_ran.products++;
}

static __attribute__((unused, noinline)) void amx_stored(int tile, void* base, ptrdiff_t stride) {
  amx_known(tile, "a store of a tile that the configuration leaves out");
  for (int r = 0; r < amx_tiles.rows[tile]; r++)
    for (int b = 0; b < amx_tiles.bytes[tile]; b++) ((uint8_t*)base)[r * stride + b] = amx_tiles.data[tile][r][b];
  amx_ran.stores++;
}

static __attribute__((unused, noinline)) void amx_release(void) {
  amx_check(amx_tiles.configured, "released twice, or without a configuration");
  amx_tiles.configured = 0;
  amx_ran.releases++;
}

#ifdef AMX_MODEL_COUNTS
/* The counts of this thread, which start again at 0. */
void amx_read_counts(amx_counts* to) {
  *to = amx_ran;
  amx_ran = (amx_counts){ 0, 0, 0, 0, 0 };
}
#endif

#undef _tile_loadconfig
#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_zero
#undef _tile_dpbusd
#undef _tile_stored
#undef _tile_release
#define _tile_loadconfig(config) amx_loadconfig(config)
#define _tile_loadd(tile, base, stride) amx_loadd(tile, base, stride)
#define _tile_stream_loadd(tile, base, stride) amx_loadd(tile, base, stride)
#define _tile_zero(tile) amx_zero(tile)
#define _tile_dpbusd(d, a, b) amx_dpbusd(d, a, b)
#define _tile_stored(tile, base, stride) amx_stored(tile, base, stride)
#define _tile_release() amx_release()
#endif
