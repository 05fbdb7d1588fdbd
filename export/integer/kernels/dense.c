/* A layer of rows: out[r] = clip(requantise(weight[r] . x + bias[r])). The 32-bit sums were proven not to overflow when
 * this file was written. */
typedef struct {
    const int8_t *weight; /* rows of `length`; within each four in the order 0 2 1 3, as SXTB16 takes them apart */
    const int32_t *bias;
    const int32_t *multiplier;
    const uint8_t *shift;
    uint32_t rows;
    uint32_t length; /* a multiple of 4: rows end in zeros */
    int32_t low;
    int32_t high;
} dense_t;

/* Two rows at once: the values are loaded once for both. */
#if defined(__ARM_FEATURE_SIMD32) && !defined(__ARM_BIG_ENDIAN)
#include <arm_acle.h>

static inline int32_t word(const void *from)
{
    int32_t value;
    __builtin_memcpy(&value, from, sizeof value);
    return value;
}

/* Bytes 1 and 3, widened. GCC 12 does not join the shift and the widening by itself. */
static inline int32_t upper_pair(int32_t bytes)
{
    int32_t pair;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(bytes));
    return pair;
}

static inline void two_sums(const int8_t *a, const int8_t *b, const int16_t *x, uint32_t length, int32_t sum[2])
{
    const int8_t *end = a + length;
    int32_t first = sum[0];
    int32_t second = sum[1];
#pragma GCC unroll 4
    while (a != end) {
        int32_t of_a = word(a);
        int32_t of_b = word(b);
        int32_t x01 = word(x);
        int32_t x23 = word(x + 2);
        first = __smlad(__sxtb16(of_a), x01, first);
        second = __smlad(__sxtb16(of_b), x01, second);
        first = __smlad(upper_pair(of_a), x23, first);
        second = __smlad(upper_pair(of_b), x23, second);
        a += 4;
        b += 4;
        x += 4;
    }
    sum[0] = first;
    sum[1] = second;
}
#else
static inline void two_sums(const int8_t *a, const int8_t *b, const int16_t *x, uint32_t length, int32_t sum[2])
{
    for (uint32_t i = 0; i < length; i += 4) {
        sum[0] += a[i] * x[i] + a[i + 1] * x[i + 2] + a[i + 2] * x[i + 1] + a[i + 3] * x[i + 3];
        sum[1] += b[i] * x[i] + b[i + 1] * x[i + 2] + b[i + 2] * x[i + 1] + b[i + 3] * x[i + 3];
    }
}
#endif

static inline int32_t clip(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* Results of two rows; the last row of an odd number is its own neighbour. */
static inline void two_rows(const dense_t *layer, uint32_t row, uint32_t next, const int16_t *x, int32_t result[2])
{
    int32_t sum[2] = {layer->bias[row], layer->bias[next]};
    two_sums(layer->weight + row * layer->length, layer->weight + next * layer->length, x, layer->length, sum);
    result[0] = clip(sea_requantise(sum[0], layer->multiplier[row], layer->shift[row]), layer->low, layer->high);
    result[1] = clip(sea_requantise(sum[1], layer->multiplier[next], layer->shift[next]), layer->low, layer->high);
}
