/* The least that an update of a trace per step must do, in one pass over memory: e <- d e + x f, and g <- s e.
   e: (rows, n); d, f, s: (n,); x, g: (rows,). Each of `steps` steps reads and writes e once. */
void advance(float *e, const float *d, const float *x, const float *f, const float *s, float *g, long rows, long n, long steps) {
#pragma omp parallel
    for (long t = 0; t < steps; t++) {
#pragma omp for
        for (long i = 0; i < rows; i++) {
            float total = 0, xi = x[i];
            float *row = e + i * n;
#pragma omp simd reduction(+ : total)
            for (long k = 0; k < n; k++) {
                row[k] = d[k] * row[k] + xi * f[k];
                total += s[k] * row[k];
            }
            g[i] = total;
        }
    }
}
