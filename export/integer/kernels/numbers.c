
/* The layer at one place, with results of 32 bits. */
static void dense_wide(const dense_t *layer, const int16_t *x, int32_t *out)
{
    for (uint32_t row = 0; row < layer->rows; row += 2) {
        uint32_t next = row + 1 < layer->rows ? row + 1 : row;
        int32_t result[2];
        two_rows(layer, row, next, x, result);
        out[row] = result[0];
        out[next] = result[1];
    }
}
