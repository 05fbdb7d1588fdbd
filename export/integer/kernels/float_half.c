#if !defined(__ARM_FEATURE_FP16_SCALAR_ARITHMETIC)
#error "half-precision arithmetic needs an ARMv8.1-M core such as the Cortex-M55: choose the format int8 or fp32"
#endif

__extension__ typedef _Float16 number_t;

static inline number_t plus(number_t sum, number_t w, number_t x)
{
    return (number_t)(sum + (number_t)(w * x));
}

/* Eight products at a time are summed in half precision, these sums in single: long rows lose no more than short ones. */
static inline float product(const number_t *w, const number_t *x, uint32_t length)
{
    float sum = 0.0f;
    for (; length >= 8u; length -= 8u) {
        number_t even = plus(plus(plus((number_t)(w[0] * x[0]), w[2], x[2]), w[4], x[4]), w[6], x[6]);
        number_t odd = plus(plus(plus((number_t)(w[1] * x[1]), w[3], x[3]), w[5], x[5]), w[7], x[7]);
        sum += (float)(number_t)(even + odd);
        w += 8;
        x += 8;
    }
    number_t rest = 0;
    for (uint32_t i = 0; i < length; i++) {
        rest = plus(rest, w[i], x[i]);
    }
    return sum + (float)rest;
}
