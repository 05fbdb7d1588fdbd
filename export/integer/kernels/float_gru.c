
/* exp(x) to 2e-7 of its value, without a library: 2^k times a polynomial on +-ln(2)/2. NaN stays NaN. */
static float exponential(float x)
{
    if (x > 80.0f) {
        x = 80.0f;
    }
    if (x < -80.0f) {
        x = -80.0f;
    }
    float scaled = x * 1.44269504f; /* 1/ln 2 */
    if (!(scaled > -128.0f && scaled < 128.0f)) {
        return x; /* NaN */
    }
    int32_t k = (int32_t)(scaled + (scaled < 0.0f ? -0.5f : 0.5f));
    float r = x - (float)k * 0.693359375f; /* ln 2 in two parts (Cephes expf) */
    r = r - (float)k * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    uint32_t bits = (uint32_t)(k + 127) << 23;
    float power;
    __builtin_memcpy(&power, &bits, sizeof power);
    return p * power;
}

static float sigmoid(float x)
{
    return 1.0f / (1.0f + exponential(-x));
}

static float hyperbolic(float x)
{
    float e = exponential(x < 0.0f ? 2.0f * x : -2.0f * x);
    float magnitude = (1.0f - e) / (1.0f + e);
    return x < 0.0f ? -magnitude : magnitude;
}

/* One step of the cell. `x`, `h`: its six products, rows r, z, n. */
static void gru(const float *x, const float *h, uint32_t hidden, number_t *state)
{
    for (uint32_t i = 0; i < hidden; i++) {
        float r = sigmoid(x[i] + h[i]);
        float z = sigmoid(x[hidden + i] + h[hidden + i]);
        float n = hyperbolic(x[2u * hidden + i] + r * h[2u * hidden + i]);
        state[i] = (number_t)(n + z * ((float)state[i] - n));
    }
}
