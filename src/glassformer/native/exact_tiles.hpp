// Tiles of matrices of 4 and 8 bits against vectors that are not rounded: numbers of a column become floats, one row a
// lane, and products and sums are fp32, in the same order in registers of every width.
#pragma once

#include "operands.hpp"

namespace {

#ifdef WITH_AVX2

// A tile in registers of eight numbers.
struct Eight {
  using Numbers = __m256i;
  using Floats = __m256;
  const uint8_t* block;

  void move(int bytes) { block += bytes; }
  Numbers numbers(int at) const { return _mm256_loadu_si256((const __m256i*)(block + at)); }
  Floats halves(int at) const { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(block + at))); }
  template <int BITS, int COLUMN>
  static Floats column(Numbers v) {
    if (BITS == 4)
      return _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(v, 4 * COLUMN), _mm256_set1_epi32(15)));
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(v, 24 - 8 * (COLUMN % 4)), 24));
  }
  static Floats all(float x) { return _mm256_set1_ps(x); }
  static Floats sum(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  static Floats fused(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
};

#ifdef WITH_512

inline __m512i both_of(const uint8_t* a, const uint8_t* b) {
  const __m512i low = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i*)a));
  return _mm512_inserti64x4(low, _mm256_loadu_si256((const __m256i*)b), 1);
}

inline __m512 scales_of(const uint8_t* a, const uint8_t* b) {  // of two blocks; a, b: where they stand
  const __m256i low = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i*)a));
  return _mm512_cvtph_ps(_mm256_inserti128_si256(low, _mm_loadu_si128((const __m128i*)b), 1));
}

// Two tiles in registers of sixteen numbers.
struct Sixteen {
  using Numbers = __m512i;
  using Floats = __m512;
  const uint8_t *block, *other;

  void move(int bytes) { block += bytes, other += bytes; }
  Numbers numbers(int at) const { return both_of(block + at, other + at); }
  Floats halves(int at) const { return scales_of(block + at, other + at); }
  template <int BITS, int COLUMN>
  static Floats column(Numbers v) {  // a number of four bits is looked up: its low bits are the place in a table
    const __m512 table = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    if (BITS == 4) return _mm512_permutexvar_ps(_mm512_srli_epi32(v, 4 * COLUMN), table);
    return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(v, 24 - 8 * (COLUMN % 4)), 24));
  }
  static Floats all(float x) { return _mm512_set1_ps(x); }
  static Floats sum(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static Floats fused(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
};

#endif

// Against N tokens from `first` on: out[token], a row in each lane.
template <int BITS, int N, class Tiles>
void exact_sums(Tiles tiles, int groups, const Vectors& x, int first, typename Tiles::Floats* out) {
  using Floats = typename Tiles::Floats;
  for (int t = 0; t < N; t++) out[t] = Tiles::all(0);
  for (int g = 0; g < groups; g++, tiles.move(BITS == 4 ? BYTES_4 : BYTES_8)) {
    Floats even[N], odd[N];  // two sums, so that one need not wait for the other
    for (int t = 0; t < N; t++) even[t] = odd[t] = Tiles::all(0);
    const float* from = x.exact + (int64_t)first * x.columns + g * GROUP;
    const auto take = [&](Floats column, int c, Floats* sums) {
      for (int t = 0; t < N; t++)
        sums[t] = Tiles::fused(column, Tiles::all(from[(int64_t)t * x.columns + c]), sums[t]);
    };
    for (int c = 0; c < (BITS == 4 ? 4 : 8); c++) {
      const auto v = tiles.numbers(32 * c);
      if (BITS == 4) {
        take(Tiles::template column<4, 0>(v), 4 * c, even), take(Tiles::template column<4, 1>(v), 4 * c + 16, odd);
        take(Tiles::template column<4, 2>(v), 4 * c + 1, even), take(Tiles::template column<4, 3>(v), 4 * c + 17, odd);
        take(Tiles::template column<4, 4>(v), 4 * c + 2, even), take(Tiles::template column<4, 5>(v), 4 * c + 18, odd);
        take(Tiles::template column<4, 6>(v), 4 * c + 3, even), take(Tiles::template column<4, 7>(v), 4 * c + 19, odd);
      } else {
        take(Tiles::template column<8, 0>(v), 4 * c, even), take(Tiles::template column<8, 1>(v), 4 * c + 1, odd);
        take(Tiles::template column<8, 2>(v), 4 * c + 2, even), take(Tiles::template column<8, 3>(v), 4 * c + 3, odd);
      }
    }
    const int tail = BITS == 4 ? 128 : 256;
    const Floats scale = tiles.halves(tail);
    for (int t = 0; t < N; t++) out[t] = Tiles::fused(scale, Tiles::sum(even[t], odd[t]), out[t]);
    if (BITS == 4) {
      const Floats minimum = tiles.halves(tail + 16);
      for (int t = 0; t < N; t++) out[t] = Tiles::fused(minimum, Tiles::all(x.sum[x.group(first + t) + g]), out[t]);
    }
  }
}

template <int BITS, int N>
void exact_tile_of(const uint8_t* block, int groups, const Vectors& x, int first, float (*out)[TILE]) {
  __m256 sums[N];
  exact_sums<BITS, N>(Eight{block}, groups, x, first, sums);
  for (int t = 0; t < N; t++) _mm256_storeu_ps(out[t], sums[t]);
}

#ifdef WITH_512

template <int BITS>
void exact_tiles_of(int n, const uint8_t* block, int64_t next, int groups, const Vectors& x, int first, __m512* out) {
  const Sixteen tiles{block, block + next};
  switch (n) {
    case 1: exact_sums<BITS, 1>(tiles, groups, x, first, out); break;
    case 2: exact_sums<BITS, 2>(tiles, groups, x, first, out); break;
    case 3: exact_sums<BITS, 3>(tiles, groups, x, first, out); break;
    default: exact_sums<BITS, 4>(tiles, groups, x, first, out);
  }
}

#endif

#else

template <int BITS, int N>
void exact_tile_of(const uint8_t* block, int groups, const Vectors& x, int first, float (*out)[TILE]) {
  for (int t = 0; t < N; t++) std::fill(out[t], out[t] + TILE, 0.0f);
  for (int g = 0; g < groups; g++, block += BITS == 4 ? BYTES_4 : BYTES_8)
    for (int t = 0; t < N; t++) {
      const float* from = x.exact + (int64_t)(first + t) * x.columns + g * GROUP;
      for (int r = 0; r < TILE; r++) {
        float even = 0, odd = 0;
        for (int c = 0; c < (BITS == 4 ? 4 : 8); c++)
          for (int k = 0; k < 4; k++) {
            const uint8_t w = block[32 * c + 4 * r + k];
            if (BITS == 4)
              even += (float)(w & 15) * from[4 * c + k], odd += (float)(w >> 4) * from[4 * c + k + 16];
            else
              (k % 2 ? odd : even) += (float)(int8_t)w * from[4 * c + k];
          }
        const uint8_t* tail = block + (BITS == 4 ? 128 : 256) + 2 * r;
        out[t][r] += half(tail) * (even + odd);
        if (BITS == 4) out[t][r] += half(tail + 16) * x.sum[x.group(first + t) + g];
      }
    }
}

#endif

}  // namespace
