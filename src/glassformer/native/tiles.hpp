// Tiles of matrices of 4 and 8 bits: eight rows, one in each lane of a vector.
#pragma once

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

// The same tiles against vectors that are not rounded: numbers of a column become floats, one row a lane.
template <int BITS, int COLUMN>
inline __m256 column_of(__m256i v) {  // COLUMN: of 8 (4 bits: four low, four high) or of 4
  if (BITS == 4)
    return _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(v, 4 * COLUMN), _mm256_set1_epi32(15)));
  return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(v, 24 - 8 * (COLUMN % 4)), 24));
}

template <int BITS, int N>
void exact_tile_of(const uint8_t* block, int groups, const Vectors& x, int first, float (*out)[TILE]) {
  __m256 result[N];
  for (int t = 0; t < N; t++) result[t] = _mm256_setzero_ps();
  for (int g = 0; g < groups; g++, block += BITS == 4 ? BYTES_4 : BYTES_8) {
    __m256 even[N], odd[N];  // two sums, so that one need not wait for the other
    for (int t = 0; t < N; t++) even[t] = odd[t] = _mm256_setzero_ps();
    const float* from = x.exact + (int64_t)first * x.columns + g * GROUP;
    const auto take = [&](__m256 column, int c, __m256* sums) {
      for (int t = 0; t < N; t++)
        sums[t] = _mm256_fmadd_ps(column, _mm256_broadcast_ss(from + (int64_t)t * x.columns + c), sums[t]);
    };
    for (int c = 0; c < (BITS == 4 ? 4 : 8); c++) {
      const __m256i v = _mm256_loadu_si256((const __m256i*)(block + 32 * c));
      if (BITS == 4) {
        take(column_of<4, 0>(v), 4 * c, even), take(column_of<4, 1>(v), 4 * c + 16, odd);
        take(column_of<4, 2>(v), 4 * c + 1, even), take(column_of<4, 3>(v), 4 * c + 17, odd);
        take(column_of<4, 4>(v), 4 * c + 2, even), take(column_of<4, 5>(v), 4 * c + 18, odd);
        take(column_of<4, 6>(v), 4 * c + 3, even), take(column_of<4, 7>(v), 4 * c + 19, odd);
      } else {
        take(column_of<8, 0>(v), 4 * c, even), take(column_of<8, 1>(v), 4 * c + 1, odd);
        take(column_of<8, 2>(v), 4 * c + 2, even), take(column_of<8, 3>(v), 4 * c + 3, odd);
      }
    }
    const uint8_t* tail = block + (BITS == 4 ? 128 : 256);
    const __m256 scale = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)tail));
    for (int t = 0; t < N; t++) result[t] = _mm256_fmadd_ps(scale, _mm256_add_ps(even[t], odd[t]), result[t]);
    if (BITS == 4) {
      const __m256 minimum = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(tail + 16)));
      for (int t = 0; t < N; t++)
        result[t] = _mm256_fmadd_ps(minimum, _mm256_broadcast_ss(x.sum + x.group(first + t) + g), result[t]);
    }
  }
  for (int t = 0; t < N; t++) _mm256_storeu_ps(out[t], result[t]);
}

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

inline __m512i both_of(const uint8_t* a, const uint8_t* b) {
  const __m512i low = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i*)a));
  return _mm512_inserti64x4(low, _mm256_loadu_si256((const __m256i*)b), 1);
}

inline __m512 scales_of(const uint8_t* a, const uint8_t* b) {  // of two blocks; a, b: where they stand
  const __m256i low = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i*)a));
  return _mm512_cvtph_ps(_mm256_inserti128_si256(low, _mm_loadu_si128((const __m128i*)b), 1));
}

template <int BITS, int COLUMN>
inline __m512 column_of(__m512i v) {  // a number of four bits is looked up: its low bits are the place in a table
  const __m512 numbers = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  if (BITS == 4) return _mm512_permutexvar_ps(_mm512_srli_epi32(v, 4 * COLUMN), numbers);
  return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(v, 24 - 8 * (COLUMN % 4)), 24));
}

// Two tiles at once, the same sums as `exact_tile_of`: out[token][row] of 16 rows.
template <int BITS, int N>
void exact_tiles_of(const uint8_t* block, int64_t next, int groups, const Vectors& x, int first, __m512* result) {
  for (int t = 0; t < N; t++) result[t] = _mm512_setzero_ps();
  for (int g = 0; g < groups; g++, block += BITS == 4 ? BYTES_4 : BYTES_8) {
    __m512 even[N], odd[N];
    for (int t = 0; t < N; t++) even[t] = odd[t] = _mm512_setzero_ps();
    const float* from = x.exact + (int64_t)first * x.columns + g * GROUP;
    const auto take = [&](__m512 column, int c, __m512* sums) {
      for (int t = 0; t < N; t++)
        sums[t] = _mm512_fmadd_ps(column, _mm512_set1_ps(from[(int64_t)t * x.columns + c]), sums[t]);
    };
    for (int c = 0; c < (BITS == 4 ? 4 : 8); c++) {
      const __m512i v = both_of(block + 32 * c, block + next + 32 * c);
      if (BITS == 4) {
        take(column_of<4, 0>(v), 4 * c, even), take(column_of<4, 1>(v), 4 * c + 16, odd);
        take(column_of<4, 2>(v), 4 * c + 1, even), take(column_of<4, 3>(v), 4 * c + 17, odd);
        take(column_of<4, 4>(v), 4 * c + 2, even), take(column_of<4, 5>(v), 4 * c + 18, odd);
        take(column_of<4, 6>(v), 4 * c + 3, even), take(column_of<4, 7>(v), 4 * c + 19, odd);
      } else {
        take(column_of<8, 0>(v), 4 * c, even), take(column_of<8, 1>(v), 4 * c + 1, odd);
        take(column_of<8, 2>(v), 4 * c + 2, even), take(column_of<8, 3>(v), 4 * c + 3, odd);
      }
    }
    const uint8_t* tail = block + (BITS == 4 ? 128 : 256);
    const __m512 scale = scales_of(tail, tail + next);
    for (int t = 0; t < N; t++) result[t] = _mm512_fmadd_ps(scale, _mm512_add_ps(even[t], odd[t]), result[t]);
    if (BITS == 4) {
      const __m512 minimum = scales_of(tail + 16, tail + 16 + next);
      for (int t = 0; t < N; t++)
        result[t] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(x.sum[x.group(first + t) + g]), result[t]);
    }
  }
}

template <int BITS>
void exact_tiles_of(int n, const uint8_t* block, int64_t next, int groups, const Vectors& x, int first, __m512* out) {
  switch (n) {
    case 1: exact_tiles_of<BITS, 1>(block, next, groups, x, first, out); break;
    case 2: exact_tiles_of<BITS, 2>(block, next, groups, x, first, out); break;
    case 3: exact_tiles_of<BITS, 3>(block, next, groups, x, first, out); break;
    default: exact_tiles_of<BITS, 4>(block, next, groups, x, first, out);
  }
}

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
