
/* Means over `group` neighbouring rows: none of the rows is kept. */
static void dense_mean(const dense_t *layer, const int16_t *x, uint32_t group, int32_t multiplier, uint8_t shift, int32_t *out)
{
    for (uint32_t start = 0; start < layer->rows; start += group) {
        int32_t sum = 0;
        for (uint32_t row = start; row < start + group; row += 2) {
            bool two = row + 1 < start + group;
            int32_t result[2];
            two_rows(layer, row, two ? row + 1 : row, x, result);
            sum += result[0] + (two ? result[1] : 0);
        }
        *out++ = sea_requantise(sum, multiplier, shift);
    }
}
