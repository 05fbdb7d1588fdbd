
/* A logit in Q16, halves to even, saturated; never the value that stands for "not finite". */
static int32_t fixed_point(float logit)
{
    float value = logit * 65536.0f;
    if (value >= 2147483520.0f) { /* the largest float below 2^31 */
        return INT32_MAX;
    }
    if (value <= -2147483520.0f) {
        return -INT32_MAX;
    }
    int32_t whole = (int32_t)value;
    float rest = value - (float)whole;
    bool odd = (whole & 1) != 0;
    if (rest > 0.5f || (odd && rest >= 0.5f)) {
        whole++;
    } else if (rest < -0.5f || (odd && rest <= -0.5f)) {
        whole--;
    }
    return whole;
}

/* By its bits: a compiler may take "x != x" for false. */
static bool finite(float value)
{
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return (bits & 0x7f800000u) != 0x7f800000u;
}
