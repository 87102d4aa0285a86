// Blocks of a decoder for a few tokens on a CPU, with matrices of 4, 8, 16 or 32 bits: one call for all layers.
//
// A new token reads every weight once, so the time of a token is the time to read them, if nothing else takes any. From
// Python each layer is two dozen calls; here all layers are one, and the threads stay in one parallel region. Vectors
// stay as they are, and products are those of fp32; or they are rounded to 8 bits, so that products are integer (as
// llama.cpp does). Tokens do not know of each other but for the keys and values in the cache: a token's result is the
// same alone and in a crowd, bit for bit.
//
// Compiled by `building.py` when it is first needed. What it computes is that of `layers/`, and a test says so.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include <omp.h>

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__) && !defined(GLASSFORMER_PORTABLE)
#include <immintrin.h>
#define WITH_AVX2
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define WITH_VNNI _mm256_dpbusd_epi32
#if defined(__AVX512BW__) && defined(__AVX512DQ__)
#define WITH_512
#endif
#elif defined(__AVXVNNI__)
#define WITH_VNNI _mm256_dpbusd_avx_epi32
#endif
#endif

namespace {

constexpr int TILE = 8;     // rows of a matrix that lie together: one for each lane of a vector
constexpr int GROUP = 32;   // columns that share a scale
constexpr int MANY = 6;     // tokens that four tiles of 8 bits meet at once
constexpr int AT_ONCE = 4;  // tokens for which a tile is unpacked once, queries for which a key is read once
constexpr int PATIENCE = 5000;  // looks at a barrier before others are let in
constexpr int ALIGNED = 64; // bytes of a cache line
constexpr int STAY = 128;   // tokens whose vectors stay in the second-level cache
constexpr int TOGETHER = 8; // tokens whose queries one thread takes

// A block is 8 rows x 32 columns, columns in 8 steps of 4, a step row by row:
//   8 bits   256 bytes, signed                                then 8 scales (fp16)
//   4 bits   128 bytes, step c low and step c + 4 high        then 8 scales, 8 minima (fp16)
// so that w = scale * q, or scale * q + minimum. Matrices of 16 (bfloat16) and 32 bits lie row by row, without blocks.
constexpr int BYTES_8 = 256 + 16, BYTES_4 = 128 + 16 + 16;

}  // namespace

extern "C" {

struct Matrix {
  const uint8_t* blocks;
  const float* bias;  // (rows), or null
  int32_t rows, columns, bits;
};

struct Norm {
  const float* weight;  // null: there is no such norm
  const float* bias;
  float eps;
  int32_t centred;  // 1: LayerNorm, 0: RMSNorm
};

struct Layer {
  Norm attention_norm, attention_norm_after, feedforward_norm, feedforward_norm_after;
  Matrix qkv, out, up, down;
  const float *query_norm, *key_norm;  // (head_width), or null
  float head_eps;
  int32_t window;  // how many tokens back it looks, itself included; 0: all
  int32_t local;   // 1: turned by the second pair of tables
};

struct Stack {
  const Layer* layers;
  Norm final_norm;
  Matrix head;
  const float* table;   // (tokens, width): the embedding
  const float* places;  // (positions, width), added to it, or null
  float table_scale;    // what a row of the table is multiplied with
  int32_t n_layer, width, n_head, n_kv_head, head_width, n_hidden, activation, gated, pairs;
  float scale;
  int32_t exact;  // 1: vectors are not rounded
};

struct Cache {
  float *keys, *values;
  int64_t* tokens;
  int64_t layer_stride, row_stride, head_stride, token_stride;  // in numbers; a position is head_width numbers
};

struct Tokens {  // what a call is about
  const int64_t* ids;   // or null: x is given
  float* x;             // (n, width), overwritten
  float* logits;        // (n, tokens), or null: x is the answer
  const int32_t *rows, *positions;  // of the cache, where keys, values and ids are written to
  const float *cos[2], *sin[2];     // (.., pairs)
  const int32_t* turns;             // row of cos and sin
  int32_t n;
};
}

namespace {

// Vectors as they are, or rounded to 8 bits in groups of 32: x = scale * q
struct Vectors {
  float* exact;        // or null: they are rounded
  int8_t* q;
  float *scale, *sum;  // sum = x_0 + ... + x_31 of a group, what a minimum is multiplied with
  int32_t* offset;     // -128 * (q_0 + ... + q_31)
  int columns;
  const int8_t* of(int token) const { return q + (int64_t)token * columns; }
  int64_t group(int token) const { return (int64_t)token * (columns / GROUP); }
};

// x is a group of 32; `at` is its number among all of `into`.
void keep_group(const float* x, const Vectors& into, int64_t at) {
  if (into.exact) {
    float sums[8] = {};  // in this order on every processor
    for (int i = 0; i < GROUP; i++) sums[i % 8] += x[i];
    into.sum[at] = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    std::memcpy(into.exact + at * GROUP, x, GROUP * sizeof(float));
    return;
  }
  int8_t* q = into.q + at * GROUP;
  float largest = 0;
#pragma omp simd reduction(max : largest)
  for (int i = 0; i < GROUP; i++) largest = std::max(largest, std::fabs(x[i]));
  const float step = largest / 127, inverse = largest > 0 ? 127 / largest : 0;
  int total = 0;
#pragma omp simd reduction(+ : total)
  for (int i = 0; i < GROUP; i++) {
    const int n = (int)std::nearbyint(x[i] * inverse);
    q[i] = (int8_t)n;
    total += n;
  }
  into.scale[at] = step;
  into.sum[at] = step * (float)total;
  into.offset[at] = -128 * total;
}

// e^x to 2e-7 of itself, without branches, so that a loop over it becomes vectors. As in Cephes' expf.
inline float exponential(float x) {
  x = std::min(std::max(x, -87.0f), 88.0f);
  const float n = std::nearbyint(x * 1.44269504f);
  const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1;
  int32_t bits = ((int32_t)n + 127) << 23;
  float power;
  std::memcpy(&power, &bits, 4);
  return p * power;
}

// To 2e-7: Abramowitz and Stegun 1964, 7.1.26.
inline float error_function(float x) {
  const float size = std::fabs(x), t = 1 / (1 + 0.3275911f * size);
  const float p = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
  return std::copysign(1 - p * exponential(-size * size), x);
}

// In the order of `KINDS` in stack.py.
inline float activate(int kind, float x) {
  switch (kind) {
    case 0: return x / (1 + exponential(-x));                                                      // silu
    case 1: return x / (1 + exponential(-1.5957691216f * (x + 0.044715f * x * x * x)));            // gelu_new
    case 2: return 0.5f * x * (1 + error_function(x * 0.70710678f));                                    // gelu
    case 3: return std::max(x, 0.0f);                                                              // relu
    default: return std::max(x, 0.0f) * std::max(x, 0.0f);                                         // relu2
  }
}

template <int KIND>
void activate_group(float* x) {
#pragma omp simd
  for (int i = 0; i < GROUP; i++) x[i] = activate(KIND, x[i]);
}

void activate_group(int kind, float* x) {
  switch (kind) {
    case 0: activate_group<0>(x); break;
    case 1: activate_group<1>(x); break;
    case 2: activate_group<2>(x); break;
    case 3: activate_group<3>(x); break;
    default: activate_group<4>(x);
  }
}

[[maybe_unused]] float half(const uint8_t* at) {
  uint16_t h;
  std::memcpy(&h, at, 2);
  const int exponent = (h >> 10) & 31, fraction = h & 1023;
  const float size = exponent ? std::ldexp((float)(1024 + fraction), exponent - 25) : std::ldexp((float)fraction, -24);
  return h & 0x8000 ? -size : size;
}

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

// Sixteen numbers, added up in the same order on every processor.
struct Wide {
#ifdef __AVX512F__
  __m512 v = _mm512_setzero_ps();
#elif defined(WITH_AVX2)
  __m256 low = _mm256_setzero_ps(), high = _mm256_setzero_ps();
#else
  float v[16] = {};
#endif
};

inline Wide wide(const float* at) {
  Wide x;
#ifdef __AVX512F__
  x.v = _mm512_loadu_ps(at);
#elif defined(WITH_AVX2)
  x.low = _mm256_loadu_ps(at), x.high = _mm256_loadu_ps(at + 8);
#else
  std::memcpy(x.v, at, sizeof x.v);
#endif
  return x;
}

inline Wide wide(const uint16_t* at) {  // bfloat16 is the upper half of a float
  Wide x;
#ifdef __AVX512F__
  x.v = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)at)), 16));
#elif defined(WITH_AVX2)
  const auto eight = [](const uint16_t* from) {
    const __m256i numbers = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(numbers, 16));
  };
  x.low = eight(at), x.high = eight(at + 8);
#else
  for (int i = 0; i < 16; i++) {
    const uint32_t bits = (uint32_t)at[i] << 16;
    std::memcpy(x.v + i, &bits, 4);
  }
#endif
  return x;
}

inline void fuse(const Wide& a, const Wide& b, Wide& sum) {  // sum += a * b
#ifdef __AVX512F__
  sum.v = _mm512_fmadd_ps(a.v, b.v, sum.v);
#elif defined(WITH_AVX2)
  sum.low = _mm256_fmadd_ps(a.low, b.low, sum.low), sum.high = _mm256_fmadd_ps(a.high, b.high, sum.high);
#else
  for (int i = 0; i < 16; i++) sum.v[i] += a.v[i] * b.v[i];
#endif
}

inline float total(const Wide& x) {
  float v[16];
  std::memcpy(v, &x, sizeof v);
  for (int half = 8; half; half /= 2)
    for (int i = 0; i < half; i++) v[i] += v[i + half];
  return v[0];
}

#ifdef __AVX512F__
constexpr int ROWS = 4, MET = 4;  // rows and tokens whose products are kept in registers
#else
constexpr int ROWS = 2, MET = 2;
#endif

// R rows of a matrix that lies row by row, against N tokens: out[row][token].
template <int R, int N, class W>
void rows_of(const W* w, int columns, const float* x, float (*out)[MET]) {
  Wide sums[R][N];
  for (int c = 0; c < columns; c += 16) {
    Wide vectors[N];
    for (int t = 0; t < N; t++) vectors[t] = wide(x + (int64_t)t * columns + c);
    for (int r = 0; r < R; r++) {
      const Wide weights = wide(w + (int64_t)r * columns + c);
      for (int t = 0; t < N; t++) fuse(weights, vectors[t], sums[r][t]);
    }
  }
  for (int r = 0; r < R; r++)
    for (int t = 0; t < N; t++) out[r][t] = total(sums[r][t]);
}

template <int R, class W>
void rows_of(int n, const W* w, int columns, const float* x, float (*out)[MET]) {
  switch (n) {
    case 1: rows_of<R, 1>(w, columns, x, out); break;
#ifdef __AVX512F__
    case 2: rows_of<R, 2>(w, columns, x, out); break;
    case 3: rows_of<R, 3>(w, columns, x, out); break;
#endif
    default: rows_of<R, MET>(w, columns, x, out);
  }
}

template <class W>
void multiply_rows(const Matrix& w, const Vectors& x, int n, float* y, bool add, int thread, int threads) {
  const int pieces = (w.rows + ROWS - 1) / ROWS, columns = w.columns;
  const int from = (int)((int64_t)pieces * thread / threads) * ROWS;
  const int to = std::min(w.rows, (int)((int64_t)pieces * (thread + 1) / threads) * ROWS);
  float out[ROWS][MET];
  for (int start = 0; start < n; start += STAY)
    for (int row = from; row < to; row += ROWS) {
      const W* weights = (const W*)w.blocks + (int64_t)row * columns;
      const int rows = std::min(ROWS, to - row);
      for (int t = start; t < std::min(n, start + STAY); t += MET) {
        const int left = std::min(MET, std::min(n, start + STAY) - t);
        const float* vectors = x.exact + (int64_t)t * columns;
        if (rows == ROWS)
          rows_of<ROWS>(left, weights, columns, vectors, out);
        else
          for (int r = 0; r < rows; r++) rows_of<1>(left, weights + (int64_t)r * columns, columns, vectors, out + r);
        for (int r = 0; r < rows; r++)
          for (int i = 0; i < left; i++) {
            float* at = y + (int64_t)(t + i) * w.rows + row + r;
            *at = (add ? *at : 0) + out[r][i] + (w.bias ? w.bias[row + r] : 0);
          }
      }
    }
}

// y = W x + bias for n tokens, this thread's share of the rows; `add`: y += that.
void multiply(const Matrix& w, const Vectors& x, int n, float* y, bool add, int thread, int threads) {
  if (w.bits == 32) return multiply_rows<float>(w, x, n, y, add, thread, threads);
  if (w.bits == 16) return multiply_rows<uint16_t>(w, x, n, y, add, thread, threads);
  const int tiles = (w.rows + TILE - 1) / TILE;
  const int64_t bytes = (int64_t)(w.columns / GROUP) * (w.bits == 4 ? BYTES_4 : BYTES_8);
  const int from = (int)((int64_t)tiles * thread / threads), to = (int)((int64_t)tiles * (thread + 1) / threads);
  float out[AT_ONCE][TILE];
  for (int start = 0; start < n; start += STAY) {
    const int stop = std::min(n, start + STAY);
    int done = start, held = 0;  // tokens that four tiles have met already, and how many of the tiles are left
    for (int tile = from; tile < to; tile++) {
      const uint8_t* block = w.blocks + tile * bytes;
      const int row = tile * TILE, rows = std::min(TILE, w.rows - row);
#ifdef WITH_512
      if (held) {
        held--;
      } else if (x.exact && tile + 2 <= to && row + 2 * TILE <= w.rows) {
        __m512 sums[AT_ONCE];
        for (int t = start; t < stop; t += AT_ONCE) {
          const int left = std::min(AT_ONCE, stop - t), groups = w.columns / GROUP;
          if (w.bits == 4)
            exact_tiles_of<4>(left, block, bytes, groups, x, t, sums);
          else
            exact_tiles_of<8>(left, block, bytes, groups, x, t, sums);
          for (int i = 0; i < left; i++) put(w, sums[i], t + i, row, y, add);
        }
        done = stop, held = 1;
      } else if (x.exact) {
        done = start;
      } else if (w.bits == 8 && stop - start >= MANY && tile + 4 <= to && row + 4 * TILE <= w.rows) {
        done = multiply_many(w, x, block, bytes, row, start, stop, y, add);
        held = 3;
      } else {
        done = start;
      }
#endif
      for (int t = done; t < stop; t += AT_ONCE) {
        const int left = std::min(AT_ONCE, stop - t);
        switch (left) {
          case 1: tile_of<1>(w, block, x, t, out); break;
          case 2: tile_of<2>(w, block, x, t, out); break;
          case 3: tile_of<3>(w, block, x, t, out); break;
          default: tile_of<4>(w, block, x, t, out);
        }
        for (int i = 0; i < left; i++) {
          float* at = y + (int64_t)(t + i) * w.rows + row;
          for (int r = 0; r < rows; r++) at[r] = (add ? at[r] : 0) + out[i][r] + (w.bias ? w.bias[row + r] : 0);
        }
      }
    }
  }
}

// Where threads wait for each other: nine times a layer. OpenMP's own barrier puts threads to sleep as soon as a process
// has more of them than processors, as it has when a server's thread asks and not the one that loaded the model: 20 ms a
// token instead of 7.
class Meeting {
 public:
  void wait(int threads) {
    const int round = round_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == threads - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; round_.load(std::memory_order_acquire) == round; spins++)
      if (spins < PATIENCE)
        pause();
      else
        std::this_thread::yield();  // somebody else has our processor
  }

 private:
  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  std::atomic<int> arrived_{0}, round_{0};
};

struct Range {  // this thread's share of n things
  int from, to;
  Range(int n, int thread, int threads)
      : from((int)((int64_t)n * thread / threads)), to((int)((int64_t)n * (thread + 1) / threads)) {}
};

void normed(const Norm& norm, const float* x, int width, float* y) {
  float mean = 0, square = 0;
  if (norm.centred) {
#pragma omp simd reduction(+ : mean)
    for (int i = 0; i < width; i++) mean += x[i];
    mean /= (float)width;
  }
#pragma omp simd reduction(+ : square)
  for (int i = 0; i < width; i++) square += (x[i] - mean) * (x[i] - mean);
  const float by = 1 / std::sqrt(square / (float)width + norm.eps);
  if (norm.bias)
    for (int i = 0; i < width; i++) y[i] = (x[i] - mean) * by * norm.weight[i] + norm.bias[i];
  else
    for (int i = 0; i < width; i++) y[i] = (x[i] - mean) * by * norm.weight[i];
}

void keep_all(const float* x, const Vectors& into, int token) {
  for (int g = 0; g < into.columns / GROUP; g++) keep_group(x + g * GROUP, into, into.group(token) + g);
}

void normed_head(const float* weight, float eps, float* x, int width) {
  if (weight) normed(Norm{weight, nullptr, eps, 0}, x, width, x);
}

void turn(float* x, const float* cos, const float* sin, int pairs) {
  for (int i = 0; i < pairs; i++) {
    const float a = x[i], b = x[i + pairs];
    x[i] = a * cos[i] - b * sin[i];
    x[i + pairs] = b * cos[i] + a * sin[i];
  }
}

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

// Memory for a call, kept for the next one. Where a piece begins decides in which order the compiler's vectors add it up,
// and the same token is to get the same sum in every call.
class Scratch {
 public:
  template <class T>
  T* take(size_t n) {
    if (used_ == parts_.size()) parts_.emplace_back();
    auto& part = parts_[used_++];
    const size_t bytes = n * sizeof(T) + ALIGNED;
    if (part.size() < bytes) part.resize(bytes);
    const size_t beyond = reinterpret_cast<uintptr_t>(part.data()) % ALIGNED;
    return reinterpret_cast<T*>(part.data() + (ALIGNED - beyond) % ALIGNED);
  }
  Vectors vectors(int n, int columns, bool exact) {
    const size_t all = (size_t)n * columns, groups = (size_t)n * (columns / GROUP);
    if (exact) return {take<float>(all), nullptr, nullptr, take<float>(groups), nullptr, columns};
    return {nullptr, take<int8_t>(all), take<float>(groups), take<float>(groups), take<int32_t>(groups), columns};
  }
  void reset() { used_ = 0; }

 private:
  std::vector<std::vector<char>> parts_;
  size_t used_ = 0;
};

thread_local Scratch scratch;

// shares[i] = e^((x[i] - largest) / temperature), zero for what is less than `worst`. sums: of every GROUP of them, so
// that a place on the line is found without walking all of it. Returns the sum of all.
double shares_of(const float* x, int n, float largest, float temperature, float worst, float* shares, double* sums) {
  const auto group = [&](int start, int size) {
    const float* from = x + start;
    float* into = shares + start;
    float sum = 0;
#pragma omp simd
    for (int i = 0; i < size; i++) {
      const float at = (from[i] - largest) / temperature;
      into[i] = from[i] < worst || at < -87 ? 0 : exponential(at);
    }
#pragma omp simd reduction(+ : sum)  // by itself: of two arrays only one begins where all of its kind do
    for (int i = 0; i < size; i++) sum += into[i];
    return sum;
  };
  double all = 0;
  for (int start = 0; start < n; start += GROUP)  // with a size that the compiler knows: two thirds of the time
    all += sums[start / GROUP] = start + GROUP <= n ? group(start, GROUP) : group(start, n - start);
  return all;
}

int where_it_lands(double dart, int n, const float* shares, const double* sums) {
  double line = 0;
  int start = 0;
  for (; start + GROUP < n && line + sums[start / GROUP] <= dart; start += GROUP) line += sums[start / GROUP];
  int last = start;  // that can be drawn: what is left of the dart may be a rounding error
  for (int i = start; i < std::min(n, start + GROUP); i++) {
    if (shares[i] > 0) last = i;
    if ((line += shares[i]) > dart) break;
  }
  return last;
}

float largest_of(const float* x, int n) {
  float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
  for (int i = 0; i < n; i++) largest = std::max(largest, x[i]);
  return largest;
}

}  // namespace

extern "C" {

// A matrix (rows, columns) as blocks. scale and minimum (rows, columns / 32) as floats, and the same in 16 bits. Returns
// whether the blocks hold every number as it was.
int32_t glassformer_pack(const float* weight, const float* scale, const float* minimum, const uint16_t* scale_16,
                         const uint16_t* minimum_16, int32_t rows, int32_t columns, int32_t bits, uint8_t* blocks,
                         int32_t threads) {
  const int groups = columns / GROUP, tiles = (rows + TILE - 1) / TILE, bytes = bits == 4 ? BYTES_4 : BYTES_8;
  int32_t same = 1;
#pragma omp parallel for num_threads(threads) reduction(& : same)
  for (int tile = 0; tile < tiles; tile++)
    for (int g = 0; g < groups; g++) {
      uint8_t* block = blocks + ((int64_t)tile * groups + g) * bytes;
      std::memset(block, 0, bytes);
      for (int r = 0; r < std::min(TILE, rows - tile * TILE); r++) {
        const int64_t row = tile * TILE + r, at = row * groups + g;
        const float inverse = scale[at] > 0 ? 1 / scale[at] : 0;
        const float* from = weight + row * columns + g * GROUP;
        float q[GROUP];
#pragma omp simd
        for (int i = 0; i < GROUP; i++)
          q[i] = bits == 8 ? std::nearbyint(std::min(std::max(from[i] * inverse, -127.0f), 127.0f))
                           : std::nearbyint(std::min(std::max((from[i] - minimum[at]) * inverse, 0.0f), 15.0f));
#pragma omp simd reduction(& : same)
        for (int i = 0; i < GROUP; i++) same &= q[i] * scale[at] + minimum[at] == from[i];
        for (int i = 0; i < GROUP; i++) {
          const int c = i / 4, k = i % 4;
          if (bits == 8)
            block[32 * c + 4 * r + k] = (uint8_t)(int8_t)q[i];
          else
            block[32 * (c % 4) + 4 * r + k] |= (uint8_t)q[i] << (c < 4 ? 0 : 4);
        }
        uint8_t* tail = block + (bits == 4 ? 128 : 256) + 2 * r;
        std::memcpy(tail, scale_16 + at, 2);
        if (bits == 4) std::memcpy(tail + 16, minimum_16 + at, 2);
      }
    }
  return same;
}

// y (n, rows) = W x + bias, x (n, columns), and then its activation (-1: none), for which rows are a multiple of 32
void glassformer_multiply(const Matrix* w, const float* x, int32_t n, float* y, int32_t activation, int32_t exact,
                          int32_t threads) {
  scratch.reset();
  const Vectors vectors = scratch.vectors(n, w->columns, exact);
  Meeting meeting;
#pragma omp parallel num_threads(threads)
  {
    const int thread = omp_get_thread_num(), all = omp_get_num_threads();
    const Range share(n * (w->columns / GROUP), thread, all);
    for (int g = share.from; g < share.to; g++) keep_group(x + (int64_t)g * GROUP, vectors, g);
    meeting.wait(all);
    multiply(*w, vectors, n, y, false, thread, all);
    if (activation >= 0) {
      meeting.wait(all);
      const Range own((int)((int64_t)n * w->rows / GROUP), thread, all);
      for (int g = own.from; g < own.to; g++) activate_group(activation, y + (int64_t)g * GROUP);
    }
  }
}

// A token for each of n rows, drawn as `sampling.py` does: from softmax(logits / temperature) of the top_k (0: of all);
// at temperature 0 the likeliest. chances: what it had there; own: what it has in softmax(plain). Both (n, tokens).
void glassformer_draw(const float* plain, const float* logits, int32_t n, int32_t size, float temperature, int32_t top_k,
                      const double* darts, int32_t* drawn, float* chances, float* own, int32_t threads) {
#pragma omp parallel for num_threads(threads) if (n > 1)
  for (int t = 0; t < n; t++) {
    scratch.reset();
    float* shares = scratch.take<float>(size);
    double* sums = scratch.take<double>(size / GROUP + 1);
    const float *x = logits + (int64_t)t * size, *before = plain + (int64_t)t * size;
    const float largest = largest_of(x, size);
    if (temperature == 0) {
      drawn[t] = std::min((int)(std::find(x, x + size, largest) - x), size - 1);  // beyond: no logit is a number
      chances[t] = 1;
    } else {
      float worst = -INFINITY;
      if (top_k > 0 && top_k < size) {
        float* best = scratch.take<float>(top_k);
        std::partial_sort_copy(x, x + size, best, best + top_k, std::greater<float>());
        worst = best[top_k - 1];
      }
      const double all = shares_of(x, size, largest, std::max(temperature, 1e-30f), worst, shares, sums);
      drawn[t] = where_it_lands(darts[t] * all, size, shares, sums);
      chances[t] = (float)(shares[drawn[t]] / all);
    }
    const double all = shares_of(before, size, largest_of(before, size), 1, -INFINITY, shares, sums);
    own[t] = (float)(shares[drawn[t]] / all);
  }
}

// All blocks and the final norm; before them the embedding, where ids are given, and after them the head, where logits
// are wanted.
void glassformer_run(const Stack* stack, const Cache* cache, const Tokens* tokens, int32_t threads) {
  const Stack& m = *stack;
  const int D = m.head_width, queries = m.n_head * D, keys = m.n_kv_head * D, wide = queries + 2 * keys;
  const int ups = m.n_hidden * (m.gated ? 2 : 1), n = tokens->n;
  const int32_t *rows = tokens->rows, *positions = tokens->positions, *turns = tokens->turns;
  int longest = 0;
  for (int t = 0; t < n; t++) longest = std::max(longest, positions[t] + 1);

  scratch.reset();
  const Vectors narrow = scratch.vectors(n, m.width, m.exact), heads = scratch.vectors(n, queries, m.exact);
  const Vectors hidden = scratch.vectors(n, m.n_hidden, m.exact);
  float* qkv = scratch.take<float>((size_t)n * wide);
  float* up = scratch.take<float>((size_t)n * ups);
  float* said = scratch.take<float>((size_t)n * m.width);
  float* found = scratch.take<float>((size_t)n * queries);
  longest = (longest + 15) / 16 * 16;
  const size_t own = (size_t)longest * AT_ONCE + (m.width + 15) / 16 * 16;
  Meeting meeting;
  std::vector<std::atomic<int>> next_piece(m.n_layer);  // of attention: who is free takes the next one
  float* per_thread = scratch.take<float>((size_t)threads * own);
  float* x = tokens->ids ? scratch.take<float>((size_t)n * m.width) : tokens->x;

#pragma omp parallel num_threads(threads)
  {
    const int thread = omp_get_thread_num(), all = omp_get_num_threads();
    float* vector = per_thread + (size_t)thread * own;
    float* shares = vector + own - (size_t)longest * AT_ONCE;
    const Range own_tokens(n, thread, all);

    // a layer reads the normed stream, and its answer is added to the stream: at once, or after one more norm
    const auto read = [&](const Norm& norm) {
      for (int t = own_tokens.from; t < own_tokens.to; t++) {
        normed(norm, x + (int64_t)t * m.width, m.width, vector);
        keep_all(vector, narrow, t);
      }
      meeting.wait(all);
    };
    const auto write = [&](const Matrix& w, const Vectors& from, const Norm& after) {
      const bool at_once = after.weight == nullptr;
      multiply(w, from, n, at_once ? x : said, at_once, thread, all);
      meeting.wait(all);
      if (at_once) return;
      for (int t = own_tokens.from; t < own_tokens.to; t++) {
        normed(after, said + (int64_t)t * m.width, m.width, vector);
        for (int i = 0; i < m.width; i++) x[(int64_t)t * m.width + i] += vector[i];
      }
      meeting.wait(all);
    };

    if (tokens->ids)
      for (int t = own_tokens.from; t < own_tokens.to; t++) {
        const int64_t id = tokens->ids[t];
        const float* row = m.table + id * m.width;
        const float* place = m.places ? m.places + (int64_t)positions[t] * m.width : nullptr;
        float* into = x + (int64_t)t * m.width;
        for (int i = 0; i < m.width; i++) into[i] = row[i] * m.table_scale + (place ? place[i] : 0);
        cache->tokens[rows[t] * cache->token_stride + positions[t]] = id;
      }

    for (int l = 0; l < m.n_layer; l++) {
      const Layer& layer = m.layers[l];
      float* layer_keys = cache->keys + l * cache->layer_stride;
      float* layer_values = cache->values + l * cache->layer_stride;
      const float *cos = tokens->cos[layer.local], *sin = tokens->sin[layer.local];

      read(layer.attention_norm);
      multiply(layer.qkv, narrow, n, qkv, false, thread, all);
      meeting.wait(all);
      const Range new_keys(n * m.n_kv_head, thread, all);
      for (int i = new_keys.from; i < new_keys.to; i++) {
        const int t = i / m.n_kv_head, k = i % m.n_kv_head;
        float* key = qkv + (int64_t)t * wide + queries + k * D;
        normed_head(layer.key_norm, layer.head_eps, key, D);
        if (m.pairs) turn(key, cos + (int64_t)turns[t] * m.pairs, sin + (int64_t)turns[t] * m.pairs, m.pairs);
        const int64_t at = rows[t] * cache->row_stride + k * cache->head_stride + (int64_t)positions[t] * D;
        std::memcpy(layer_keys + at, key, D * sizeof(float));
        std::memcpy(layer_values + at, key + keys, D * sizeof(float));
      }
      meeting.wait(all);
      // one piece of work: query heads of one key-value head, and the tokens of one row that stand together
      const int group = m.n_head / m.n_kv_head, pieces = (n + TOGETHER - 1) / TOGETHER;
      const int take = pieces * m.n_kv_head < 4 * all ? 1 : group;
      for (int i; (i = next_piece[l].fetch_add(1, std::memory_order_relaxed)) < pieces * (m.n_head / take);) {
        const int head = i / pieces * take, k = head / group;
        const int begin = i % pieces * TOGETHER, end = std::min(n, begin + TOGETHER);
        Query asked[AT_ONCE];
        int waiting = 0;
        for (int t = begin; t < end; t++)
          for (int h = head; h < head + take; h++) {
            float* q = qkv + (int64_t)t * wide + h * D;
            normed_head(layer.query_norm, layer.head_eps, q, D);
            if (m.pairs) turn(q, cos + (int64_t)turns[t] * m.pairs, sin + (int64_t)turns[t] * m.pairs, m.pairs);
            const int to = positions[t], from = layer.window ? std::max(0, to - layer.window + 1) : 0;
            asked[waiting++] = {q, found + (int64_t)t * queries + h * D, from, to};
            const bool last = h == head + take - 1 && (t + 1 == end || rows[t + 1] != rows[t]);
            if (waiting < AT_ONCE && !last) continue;
            const int64_t at = rows[t] * cache->row_stride + k * cache->head_stride;
            const float *ks = layer_keys + at, *vs = layer_values + at;
            switch (waiting) {
              case 1: attend<1>(asked, ks, vs, D, m.scale, shares, longest); break;
              case 2: attend<2>(asked, ks, vs, D, m.scale, shares, longest); break;
              case 3: attend<3>(asked, ks, vs, D, m.scale, shares, longest); break;
              default: attend<4>(asked, ks, vs, D, m.scale, shares, longest);
            }
            waiting = 0;
          }
      }
      meeting.wait(all);
      const Range parts(n * (queries / GROUP), thread, all);
      for (int g = parts.from; g < parts.to; g++) keep_group(found + (int64_t)g * GROUP, heads, g);
      meeting.wait(all);
      write(layer.out, heads, layer.attention_norm_after);

      read(layer.feedforward_norm);
      multiply(layer.up, narrow, n, up, false, thread, all);
      meeting.wait(all);
      const int groups = m.n_hidden / GROUP;
      const Range acts(n * groups, thread, all);
      for (int i = acts.from; i < acts.to; i++) {
        const int t = i / groups, g = i % groups;
        float* a = up + (int64_t)t * ups + g * GROUP;
        activate_group(m.activation, a);
        if (m.gated)
          for (int j = 0; j < GROUP; j++) a[j] *= a[j + m.n_hidden];
        keep_group(a, hidden, i);
      }
      meeting.wait(all);
      write(layer.down, hidden, layer.feedforward_norm_after);
    }
    if (m.final_norm.weight)
      for (int t = own_tokens.from; t < own_tokens.to; t++) {
        normed(m.final_norm, x + (int64_t)t * m.width, m.width, vector);
        std::memcpy(x + (int64_t)t * m.width, vector, m.width * sizeof(float));
      }
    if (tokens->logits) {
      for (int t = own_tokens.from; t < own_tokens.to; t++) keep_all(x + (int64_t)t * m.width, narrow, t);
      meeting.wait(all);
      multiply(m.head, narrow, n, tokens->logits, false, thread, all);
    }
  }
}
}
