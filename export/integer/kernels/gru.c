
/* A table's function of x (Q16) in Q15, by straight lines between its points; clamped at its ends. */
static int32_t look_up(const int16_t *table, uint32_t step_bits, int32_t x)
{
    int32_t limit = (int32_t)((TABLE_POINTS / 2u) << step_bits);
    int32_t place = clip(x, -limit, limit - 1) + limit;
    int32_t index = place >> step_bits;
    int32_t fraction = place & (int32_t)((1u << step_bits) - 1u);
    int32_t rise = table[index + 1] - table[index];
    return table[index] + ((rise * fraction + (int32_t)(1u << (step_bits - 1u))) >> step_bits);
}

/* One step of the cell. `x`, `h`: its six products in Q16, rows r, z, n. The state is Q15. */
static void gru(const int32_t *x, const int32_t *h, uint32_t hidden, int16_t *state)
{
    for (uint32_t i = 0; i < hidden; i++) {
        int32_t r = look_up(SIGMOID, SIGMOID_STEP_BITS, sea_saturate32((int64_t)x[i] + h[i]));
        int32_t z = look_up(SIGMOID, SIGMOID_STEP_BITS, sea_saturate32((int64_t)x[hidden + i] + h[hidden + i]));
        int32_t reset = sea_requantise(h[2u * hidden + i], r, 15);
        int32_t n = look_up(TANH, TANH_STEP_BITS, sea_saturate32((int64_t)x[2u * hidden + i] + reset));
        state[i] = (int16_t)clip(n + sea_requantise(state[i] - n, z, 15), INT16_MIN, INT16_MAX);
    }
}
