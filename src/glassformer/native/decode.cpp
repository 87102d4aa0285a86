// Blocks of a decoder for a few tokens on a CPU, with matrices of 4, 8, 16 or 32 bits: one call for all layers.
//
// A new token reads every weight once, so the time of a token is the time to read them, if nothing else takes any. From
// Python each layer is two dozen calls; here all layers are one, and the threads stay in one parallel region. Vectors
// stay as they are, and products are those of fp32; or they are rounded to 8 bits, so that products are integer (as
// llama.cpp does). Tokens do not know of each other but for the keys and values in the cache: a token's result is the
// same alone and in a crowd, bit for bit.
//
// Compiled by `building.py` when it is first needed. What it computes is that of `layers/`, and a test says so.

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include <omp.h>

#include "attention.hpp"
#include "draw.hpp"
#include "functions.hpp"
#include "packing.hpp"
#include "products.hpp"

extern "C" {

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

constexpr int PATIENCE = 5000;  // looks at a barrier before others are let in
constexpr int ALIGNED = 64;     // bytes of a cache line
constexpr int TOGETHER = 8;     // tokens whose queries one thread takes

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

}  // namespace

extern "C" {

// A matrix (rows, columns) as blocks. Returns whether they hold every number as it was.
int32_t glassformer_pack(const float* weight, int32_t rows, int32_t columns, int32_t bits, uint8_t* blocks,
                         int32_t threads) {
  const int groups = columns / GROUP, tiles = (rows + TILE - 1) / TILE, bytes = bits == 4 ? BYTES_4 : BYTES_8;
  int32_t same = 1;
#pragma omp parallel for num_threads(threads) reduction(& : same)
  for (int tile = 0; tile < tiles; tile++)
    for (int g = 0; g < groups; g++) {
      uint8_t* block = blocks + ((int64_t)tile * groups + g) * bytes;
      std::memset(block, 0, bytes);
      for (int r = 0; r < std::min(TILE, rows - tile * TILE); r++) {
        const bool whole = bits == 4 ? pack_group<4>(weight + (int64_t)(tile * TILE + r) * columns + g * GROUP, block, r)
                                     : pack_group<8>(weight + (int64_t)(tile * TILE + r) * columns + g * GROUP, block, r);
        same &= whole;
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
                      const double* points, int32_t* drawn, float* chances, float* own, int32_t threads) {
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
      drawn[t] = where_it_lands(points[t] * all, size, shares, sums);
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
