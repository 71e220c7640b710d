/* Starts a Cortex-M without an operating system and runs a model there: for each sample it reads the inputs from the
 * debugger's or emulator's file `in.bin` and writes the outputs to `out.bin`, raw and in the model's order (semihosting:
 * Arm, Semihosting for AArch32 and AArch64). `in.bin` starts with the number of samples, a word of 32 bits.
 *
 * What it needs to know of the model is in board_model.h.
 */
#include "board_model.h"

#include "qcomp.h"

enum { SYS_OPEN = 0x01, SYS_WRITE = 0x05, SYS_WRITE0 = 0x04, SYS_READ = 0x06, SYS_EXIT_EXTENDED = 0x20 };
enum { READ_BINARY = 1, WRITE_BINARY = 5, APPLICATION_EXIT = 0x20026 };

/* Where the linker script put things. */
extern uint32_t board_stack_top[], board_data_from[], board_data_start[], board_data_end[], board_bss_start[],
    board_bss_end[];

void board_reset(void);

static uint8_t arena[BOARD_ARENA_BYTES] __attribute__((aligned(BOARD_ARENA_ALIGN), section(".arena")));
static uint8_t tensors[BOARD_TENSOR_BYTES] __attribute__((aligned(8)));

static int32_t semihost(int32_t operation, const void *argument) {
    register int32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static __attribute__((noreturn)) void leave(uint32_t status, const char *said) {
    const uint32_t block[2] = {APPLICATION_EXIT, status};
    if (said) semihost(SYS_WRITE0, said);
    for (;;) semihost(SYS_EXIT_EXTENDED, block);
}

static int32_t open_file(const char *name, uint32_t length, uint32_t mode) {
    const uint32_t block[3] = {(uint32_t)name, mode, length};
    const int32_t file = semihost(SYS_OPEN, block);
    if (file == -1) leave(2, "a file cannot be opened\n");
    return file;
}

/* Reads or writes all bytes: both calls return how many are left. */
static void transfer(int32_t operation, int32_t file, void *bytes, uint32_t count) {
    const uint32_t block[3] = {(uint32_t)file, (uint32_t)bytes, count};
    if (semihost(operation, block)) leave(2, operation == SYS_READ ? "the inputs end early\n" : "cannot write\n");
}

static __attribute__((noinline)) void run_samples(void) {
    static const uint32_t input_bytes[] = BOARD_INPUT_BYTES, output_bytes[] = BOARD_OUTPUT_BYTES;
    enum { INPUTS = sizeof input_bytes / 4 - 1, OUTPUTS = sizeof output_bytes / 4 - 1 }; /* a zero ends each */
    static void *inputs[INPUTS + 1], *outputs[OUTPUTS + 1];
    const qcomp_model *model = qcomp_describe();
    const int32_t in = open_file("in.bin", 6, READ_BINARY), out = open_file("out.bin", 7, WRITE_BINARY);
    uint32_t samples, at = 0;
    int32_t i;

    for (i = 0; i < INPUTS; at += (input_bytes[i++] + 7) & ~7u) inputs[i] = tensors + at;
    for (i = 0; i < OUTPUTS; at += (output_bytes[i++] + 7) & ~7u) outputs[i] = tensors + at;
    for (transfer(SYS_READ, in, &samples, 4); samples; samples--) {
        for (i = 0; i < INPUTS; i++) transfer(SYS_READ, in, inputs[i], input_bytes[i]);
        if (model->run(0, (const void *const *)inputs, outputs, arena)) leave(2, "run failed\n");
        for (i = 0; i < OUTPUTS; i++) transfer(SYS_WRITE, out, outputs[i], output_bytes[i]);
    }
}

/* Loops that a compiler must not make calls of the C library of. */
void board_reset(void) {
    volatile uint32_t *to;
    const volatile uint32_t *from = board_data_from;
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: the floating-point unit and vectors may be used */
    __asm__ volatile("dsb\n\tisb" ::: "memory");
#endif
    for (to = board_data_start; to < board_data_end; to++) *to = *from++;
    for (to = board_bss_start; to < board_bss_end; to++) *to = 0;
    run_samples();
    leave(0, 0);
}

static void fault(void) { leave(3, "fault: an instruction or address that this core does not have\n"); }

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    board_stack_top, (void *)board_reset, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault,
};
