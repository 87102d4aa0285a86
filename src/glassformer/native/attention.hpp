// Attention of a few queries over the keys and values of a cache.
#pragma once

#include "functions.hpp"

namespace {

typedef float Lanes __attribute__((vector_size(32)));  // eight numbers: a register, or two of them

inline Lanes lanes(const float* at) {
  Lanes found;
  std::memcpy(&found, at, sizeof found);
  return found;
}

inline Lanes fused(const Lanes& a, const Lanes& b, const Lanes& c) {  // a * b + c
#ifdef WITH_AVX2
  return (Lanes)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

inline float total(const Lanes& x) {
  return ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]));
}

inline void four_totals(const Lanes* x, float* sums) {  // the same sums in the same order
#ifdef WITH_AVX2
  const __m256 pairs = _mm256_hadd_ps((__m256)x[0], (__m256)x[1]), others = _mm256_hadd_ps((__m256)x[2], (__m256)x[3]);
  const __m256 halves = _mm256_hadd_ps(pairs, others);
  _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1)));
#else
  for (int i = 0; i < 4; i++) sums[i] = total(x[i]);
#endif
}

__attribute__((noinline)) void softmax(float* share, int first, int last) {
  float largest = -INFINITY, all = 0;
#pragma omp simd reduction(max : largest)
  for (int s = first; s <= last; s++) largest = std::max(largest, share[s]);
#pragma omp simd reduction(+ : all)
  for (int s = first; s <= last; s++) {
    share[s] = exponential(share[s] - largest);
    all += share[s];
  }
  for (int s = first; s <= last; s++) share[s] /= all;
}

struct Query {
  const float* q;
  float* y;      // softmax(q k^T scale) v
  int from, to;  // the positions that it may see
};

// Scores of N queries and K keys from s on.
template <int N, int K>
void score(const Query* queries, const float* keys, int width, float scale, float* shares, int room, int s) {
  Lanes sums[K][N] = {};
  for (int d = 0; d < width; d += 8)
    for (int j = 0; j < N; j++) {
      const Lanes q = lanes(queries[j].q + d);
      for (int k = 0; k < K; k++) sums[k][j] = fused(q, lanes(keys + (int64_t)(s + k) * width + d), sums[k][j]);
    }
  for (int k = 0; k < K; k++) {
    float totals[4];
    if (N == 4)
      four_totals(sums[k], totals);
    else
      for (int j = 0; j < N; j++) totals[j] = total(sums[k][j]);
    for (int j = 0; j < N; j++) shares[j * room + s + k] = totals[j] * scale;
  }
}

// N queries that ask the same keys, so that these are read once. shares: room for N scores of each position.
template <int N>
void attend(const Query* queries, const float* keys, const float* values, int width, float scale, float* shares,
            int room) {
  int from = queries[0].from, to = queries[0].to;
  for (int j = 1; j < N; j++) from = std::min(from, queries[j].from), to = std::max(to, queries[j].to);
  int s = from;
  for (; s + 1 <= to; s += 2) score<N, 2>(queries, keys, width, scale, shares, room, s);
  if (s == to) score<N, 1>(queries, keys, width, scale, shares, room, s);
  for (int j = 0; j < N; j++) {
    float* share = shares + j * room;
    std::fill(share + from, share + queries[j].from, 0.0f);
    softmax(share, queries[j].from, queries[j].to);
    std::fill(share + queries[j].to + 1, share + to + 1, 0.0f);
  }
  for (int d = 0; d < width; d += 16) {
    Lanes low[N] = {}, high[N] = {};
    for (int s = from; s <= to; s++) {
      const float* value = values + (int64_t)s * width + d;
      const Lanes a = lanes(value), b = lanes(value + 8);
      for (int j = 0; j < N; j++) {
        const float by = shares[j * room + s];
        const Lanes all = {by, by, by, by, by, by, by, by};
        low[j] = fused(a, all, low[j]);
        high[j] = fused(b, all, high[j]);
      }
    }
    for (int j = 0; j < N; j++) {
      std::memcpy(queries[j].y + d, &low[j], sizeof low[j]);
      std::memcpy(queries[j].y + d + 8, &high[j], sizeof high[j]);
    }
  }
}

}  // namespace
