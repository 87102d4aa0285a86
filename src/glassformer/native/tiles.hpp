// Tiles of matrices of 4 and 8 bits: eight rows, one in each lane of a vector.
#pragma once

#include "exact_tiles.hpp"
#include "operands.hpp"

namespace {

// One tile against N tokens from `first` on: out[token][row].
#ifdef WITH_AVX2

inline __m256i dot(__m256i sums, __m256i u, __m256i s) {  // += of four products of unsigned u and signed s, in 32 bits
#ifdef WITH_VNNI
  return WITH_VNNI(sums, u, s);
#else
  return _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1)));
#endif
}

inline __m256i four(const int8_t* x) {  // the same four numbers for every row
  int32_t word;
  std::memcpy(&word, x, 4);
  return _mm256_set1_epi32(word);
}

template <int N>
void tile_of_4(const uint8_t* block, int groups, const Vectors& x, int first, float (*out)[TILE]) {
  const __m256i low_bits = _mm256_set1_epi8(15);
  const int8_t* q[N];
  const float *scales[N], *totals[N];
  __m256 result[N];
  for (int t = 0; t < N; t++) {
    q[t] = x.of(first + t);
    scales[t] = x.scale + x.group(first + t);
    totals[t] = x.sum + x.group(first + t);
    result[t] = _mm256_setzero_ps();
  }
  for (int g = 0; g < groups; g++, block += BYTES_4) {
    __m256i sums[N];
    for (int t = 0; t < N; t++) sums[t] = _mm256_setzero_si256();
#pragma GCC unroll 1  // unrolled, it would not fit into the registers
    for (int c = 0; c < 4; c++) {
      const __m256i both = _mm256_loadu_si256((const __m256i*)(block + 32 * c));
      const __m256i low = _mm256_and_si256(both, low_bits);
      const __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), low_bits);
      for (int t = 0; t < N; t++) {
        const int8_t* at = q[t] + g * GROUP + 4 * c;
#ifdef WITH_VNNI
        sums[t] = dot(dot(sums[t], low, four(at)), high, four(at + 16));
#else  // 16 bits are enough for a group: 16 products of at most 15 * 127
        sums[t] = _mm256_add_epi16(sums[t], _mm256_maddubs_epi16(low, four(at)));
        sums[t] = _mm256_add_epi16(sums[t], _mm256_maddubs_epi16(high, four(at + 16)));
#endif
      }
    }
    const __m256 scale = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(block + 128)));
    const __m256 minimum = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(block + 144)));
    for (int t = 0; t < N; t++) {
#ifndef WITH_VNNI
      sums[t] = _mm256_madd_epi16(sums[t], _mm256_set1_epi16(1));
#endif
      const __m256 both = _mm256_mul_ps(scale, _mm256_broadcast_ss(scales[t] + g));
      result[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[t]), both, result[t]);
      result[t] = _mm256_fmadd_ps(minimum, _mm256_broadcast_ss(totals[t] + g), result[t]);
    }
  }
  for (int t = 0; t < N; t++) _mm256_storeu_ps(out[t], result[t]);
}

template <int N>
void tile_of_8(const uint8_t* block, int groups, const Vectors& x, int first, float (*out)[TILE]) {
  const int8_t* q[N];
  const float* scales[N];
  __m256 result[N];
  for (int t = 0; t < N; t++) {
    q[t] = x.of(first + t);
    scales[t] = x.scale + x.group(first + t);
    result[t] = _mm256_setzero_ps();
  }
  for (int g = 0; g < groups; g++, block += BYTES_8) {
    __m256i sums[N];
    for (int t = 0; t < N; t++) sums[t] = _mm256_setzero_si256();
#pragma GCC unroll 1
    for (int c = 0; c < 8; c++) {  // the signs go over to the other factor: one has to be unsigned
      const __m256i w = _mm256_loadu_si256((const __m256i*)(block + 32 * c));
      const __m256i size = _mm256_abs_epi8(w);
      for (int t = 0; t < N; t++)
        sums[t] = dot(sums[t], size, _mm256_sign_epi8(four(q[t] + g * GROUP + 4 * c), w));
    }
    const __m256 scale = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(block + 256)));
    for (int t = 0; t < N; t++) {
      const __m256 both = _mm256_mul_ps(scale, _mm256_broadcast_ss(scales[t] + g));
      result[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[t]), both, result[t]);
    }
  }
  for (int t = 0; t < N; t++) _mm256_storeu_ps(out[t], result[t]);
}

#else

template <int N>
void tile_of_4(const uint8_t* block, int groups, const Vectors& x, int first, float (*out)[TILE]) {
  for (int t = 0; t < N; t++) std::fill(out[t], out[t] + TILE, 0.0f);
  for (int g = 0; g < groups; g++, block += BYTES_4)
    for (int t = 0; t < N; t++) {
      const int8_t* q = x.of(first + t) + g * GROUP;
      const int64_t at = x.group(first + t) + g;
      for (int r = 0; r < TILE; r++) {
        int sum = 0;
        for (int c = 0; c < 4; c++)
          for (int k = 0; k < 4; k++) {
            const uint8_t both = block[32 * c + 4 * r + k];
            sum += (both & 15) * q[4 * c + k] + (both >> 4) * q[4 * c + 16 + k];
          }
        out[t][r] += (float)sum * half(block + 128 + 2 * r) * x.scale[at] + half(block + 144 + 2 * r) * x.sum[at];
      }
    }
}

template <int N>
void tile_of_8(const uint8_t* block, int groups, const Vectors& x, int first, float (*out)[TILE]) {
  for (int t = 0; t < N; t++) std::fill(out[t], out[t] + TILE, 0.0f);
  for (int g = 0; g < groups; g++, block += BYTES_8)
    for (int t = 0; t < N; t++) {
      const int8_t* q = x.of(first + t) + g * GROUP;
      for (int r = 0; r < TILE; r++) {
        int sum = 0;
        for (int c = 0; c < 8; c++)
          for (int k = 0; k < 4; k++) sum += (int8_t)block[32 * c + 4 * r + k] * q[4 * c + k];
        out[t][r] += (float)sum * half(block + 256 + 2 * r) * x.scale[x.group(first + t) + g];
      }
    }
}

#endif

template <int N>
void tile_of(const Matrix& w, const uint8_t* block, const Vectors& x, int first, float (*out)[TILE]) {
  const int groups = w.columns / GROUP;
  if (x.exact && w.bits == 4)
    exact_tile_of<4, N>(block, groups, x, first, out);
  else if (x.exact)
    exact_tile_of<8, N>(block, groups, x, first, out);
  else if (w.bits == 4)
    tile_of_4<N>(block, groups, x, first, out);
  else
    tile_of_8<N>(block, groups, x, first, out);
}

#ifdef WITH_512

inline void put(const Matrix& w, __m512 sum, int token, int row, float* y, bool add) {  // of 16 rows
  float* at = y + (int64_t)token * w.rows + row;
  if (add) sum = _mm512_add_ps(_mm512_loadu_ps(at), sum);
  _mm512_storeu_ps(at, w.bias ? _mm512_add_ps(sum, _mm512_loadu_ps(w.bias + row)) : sum);
}

// Four tiles of 8 bits, 32 rows, against MANY tokens: the same sums as `tile_of_8`, in registers twice as wide. One factor
// has to be unsigned: 128 is added to each weight, and 128 times the sum of the inputs taken off.
void tiles_of_8(const uint8_t* block, int64_t next, int groups, const Vectors& x, int first, __m512 (*out)[2]) {
  const __m512i flip = _mm512_set1_epi8((char)128);
  const int8_t* q = x.of(first);
  const int32_t* offset = x.offset + x.group(first);
  const float* step = x.scale + x.group(first);
  __m512 low[MANY], high[MANY];
  for (int t = 0; t < MANY; t++) low[t] = high[t] = _mm512_setzero_ps();
  for (int g = 0; g < groups; g++, block += BYTES_8, q += GROUP) {
    const uint8_t *b = block + next, *c = b + next, *d = c + next;
    __m512i low_sums[MANY], high_sums[MANY];
    for (int t = 0; t < MANY; t++) low_sums[t] = high_sums[t] = _mm512_set1_epi32(offset[(int64_t)t * groups + g]);
#pragma GCC unroll 1
    for (int i = 0; i < 8; i++) {
      const __m512i v = _mm512_xor_si512(both_of(block + 32 * i, b + 32 * i), flip);
      const __m512i w = _mm512_xor_si512(both_of(c + 32 * i, d + 32 * i), flip);
      for (int t = 0; t < MANY; t++) {
        __m512i four;  // in assembler, since g++ makes two copies of each sum from the intrinsic
        asm("vpbroadcastd %1, %0" : "=v"(four) : "m"(*(const char(*)[4])(q + (int64_t)t * x.columns + 4 * i)));
        asm("vpdpbusd %2, %1, %0" : "+v"(low_sums[t]) : "v"(v), "v"(four));
        asm("vpdpbusd %2, %1, %0" : "+v"(high_sums[t]) : "v"(w), "v"(four));
      }
    }
    const __m512 low_scale = scales_of(block + 256, b + 256), high_scale = scales_of(c + 256, d + 256);
    for (int t = 0; t < MANY; t++) {
      const __m512 by = _mm512_set1_ps(step[(int64_t)t * groups + g]);
      low[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(low_sums[t]), _mm512_mul_ps(low_scale, by), low[t]);
      high[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high_sums[t]), _mm512_mul_ps(high_scale, by), high[t]);
    }
  }
  for (int t = 0; t < MANY; t++) out[t][0] = low[t], out[t][1] = high[t];
}

// Four tiles from `row` on, tokens from `start` to `stop`, MANY at a time; returns the first token that is left.
int multiply_many(const Matrix& w, const Vectors& x, const uint8_t* block, int64_t bytes, int row, int start, int stop,
                  float* y, bool add) {
  __m512 out[MANY][2];
  for (; start + MANY <= stop; start += MANY) {
    tiles_of_8(block, bytes, w.columns / GROUP, x, start, out);
    for (int i = 0; i < MANY; i++)
      for (int half = 0; half < 2; half++) put(w, out[i][half], start + i, row + 16 * half, y, add);
  }
  return start;
}

#endif

}  // namespace
