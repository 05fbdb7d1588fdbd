typedef float number_t;

static inline float product(const number_t *w, const number_t *x, uint32_t length)
{
    float sum = 0.0f;
    for (uint32_t i = 0; i < length; i++) {
        sum += w[i] * x[i];
    }
    return sum;
}
