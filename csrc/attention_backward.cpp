// The gradient of attention, from weights that are evaluated once more (FlashAttention, Dao et
// al., arXiv 2205.14135, algorithm 4). With P the weights, O the output and ' a gradient:
//
//   V' = P^T O',  P' = O' V^T,  S' = scale * P (P' - sum_j O'_j O_j),  Q' = S' K,  K' = S'^T Q
//
// Scores are kept as in the forward pass, keys down and queries across.
#include "attention_avx512.h"

namespace attention {
namespace {

constexpr int64_t WIDE = COLUMNS * LANES;  // queries of a tile
constexpr int64_t BLOCK = 96;              // keys of a block

// What a part keeps: all of its head's keys, values and their gradients, one tile of queries,
// and one block of weights.
template <class T>
struct Scratch {
  static constexpr int64_t TILE_WORDS = WIDE / T::PER_WORD;
  int64_t words;    // of a row
  int64_t columns;  // width to 16
  int64_t key_words;  // of one channel of all keys
  uint32_t *keys, *values;             // left [keys, words]
  uint32_t* key_channels;              // left [columns, key_words]
  uint32_t *queries, *arriving;        // right [words to 16, WIDE]
  uint32_t *query_rows, *arriving_rows;  // right [TILE_WORDS, columns]
  float *scores, *pull;                // [BLOCK and one more, WIDE]
  uint32_t *weights, *slopes;          // left [BLOCK and one more, TILE_WORDS]
  uint32_t* slopes_across;             // right [BLOCK / PER_WORD, WIDE]
  float *to_keys, *to_values;          // [keys, columns]
  float* to_queries;                   // [columns, WIDE]
  size_t bytes;

  Scratch(const Gradient& g, void* data) {
    Memory memory(data);
    const Problem& p = g.of;
    words = (p.width + T::PER_WORD - 1) / T::PER_WORD;
    columns = round_up(p.width, LANES);
    key_words = round_up(p.keys, LANES * T::PER_WORD) / T::PER_WORD;
    keys = memory.words(p.keys * words);
    values = memory.words(p.keys * words);
    key_channels = memory.words(columns * key_words);
    queries = memory.words(round_up(words, LANES) * WIDE);
    arriving = memory.words(round_up(words, LANES) * WIDE);
    query_rows = memory.words(TILE_WORDS * columns);
    arriving_rows = memory.words(TILE_WORDS * columns);
    scores = memory.floats((BLOCK + 1) * WIDE);
    pull = memory.floats((BLOCK + 1) * WIDE);
    // In f32 a block's weights and slopes take the place of its scores and pull.
    const bool in_place = T::PER_WORD == 1;
    weights = in_place ? reinterpret_cast<uint32_t*>(scores)
                       : memory.words((BLOCK + 1) * TILE_WORDS);
    slopes = in_place ? reinterpret_cast<uint32_t*>(pull)
                      : memory.words((BLOCK + 1) * TILE_WORDS);
    slopes_across = in_place ? slopes : memory.words(BLOCK / 2 * WIDE);
    to_keys = memory.floats(p.keys * columns);
    to_values = memory.floats(p.keys * columns);
    to_queries = memory.floats(columns * WIDE);
    bytes = memory.bytes();
  }
};

// Rows as a right operand summed over the rows: to [WIDE / PER_WORD, columns], 0 beyond `count`.
template <class T>
AVX512 void pack_summed(const typename T::Element* from, int64_t stride, int64_t count,
                        int64_t width, uint32_t* to, int64_t columns) {
  auto row = [&](int64_t n) { return n < count ? from + n * stride : nullptr; };
  for (int64_t n = 0; n < WIDE; n += T::PER_WORD, to += columns)
    for (int64_t j = 0; j < width; j += LANES) {
      const auto* first = row(n);
      __m512i x = _mm512_setzero_si512();
      if (first) x = T::widen(first, j, width);
      if constexpr (T::PER_WORD == 2) {
        if (const auto* second = row(n + 1))
          x = _mm512_or_si512(x, _mm512_slli_epi32(T::widen(second, j, width), 16));
      }
      _mm512_store_si512(to + j, x);
    }
}

// c [rows, columns] += a [rows, words] b [words, columns].
template <class T>
void add_product(int64_t rows, const uint32_t* a, const uint32_t* b, int64_t words, float* c,
                 int64_t columns) {
  for (int64_t j = 0; j < columns; j += COLUMNS * LANES) {
    auto by = [&](auto product) {
      product(rows, a, words, b + j, columns, words, c + j, columns, true);
    };
    switch (std::min<int64_t>(COLUMNS, (columns - j) / LANES)) {
      case 1: by(product<T, 1>); break;
      case 2: by(product<T, 2>); break;
      case 3: by(product<T, 3>); break;
      default: by(product<T, COLUMNS>);
    }
  }
}

// Weights and slopes of a block from its scores and pull (P and S' from S and P').
template <class T>
AVX512 void differentiate(int64_t keys, float scale, const Scratch<T>& s, const __m512* shift,
                          const __m512* level) {
  const __m512 slope = _mm512_set1_ps(scale * LOG2_E), factor = _mm512_set1_ps(scale);
  for (int64_t m = 0; m < keys; m += T::PER_WORD)
    for (int c = 0; c < COLUMNS; c++) {
      __m512 weight[T::PER_WORD], change[T::PER_WORD];
      for (int i = 0; i < T::PER_WORD; i++) {
        const int64_t at = (m + i) * WIDE + c * LANES;
        weight[i] =
            power_of_2(_mm512_fmsub_ps(_mm512_load_ps(s.scores + at), slope, shift[c]));
        __m512 pull = _mm512_sub_ps(_mm512_load_ps(s.pull + at), level[c]);
        change[i] = _mm512_mul_ps(_mm512_mul_ps(weight[i], pull), factor);
        if (m + i == keys) weight[i] = change[i] = _mm512_setzero_ps();
      }
      if constexpr (T::PER_WORD == 1) {
        _mm512_store_ps(s.scores + m * WIDE + c * LANES, weight[0]);
        _mm512_store_ps(s.pull + m * WIDE + c * LANES, change[0]);
      } else {
        for (int i = 0; i < 2; i++) {
          const int64_t at = (m + i) * WIDE + c * LANES;  // in elements
          _mm256_store_si256((__m256i*)((uint16_t*)s.weights + at),
                             (__m256i)_mm512_cvtneps_pbh(weight[i]));
          _mm256_store_si256((__m256i*)((uint16_t*)s.slopes + at),
                             (__m256i)_mm512_cvtneps_pbh(change[i]));
        }
        _mm512_store_si512(s.slopes_across + (m / 2 * COLUMNS + c) * LANES,
                           pair_up(change[0], change[1]));
      }
    }
}

// sum_j O'_j O_j of `count` queries, 0 beyond: `columns` channels of rows.
template <class T>
AVX512 void levels(const typename T::Element* a, int64_t a_stride, const typename T::Element* b,
                   int64_t b_stride, int64_t count, int64_t width, float* to) {
  for (int64_t n = 0; n < WIDE; n++) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t j = 0; n < count && j < width; j += LANES)
      sum = _mm512_fmadd_ps(T::floats(a + n * a_stride, j, width),
                            T::floats(b + n * b_stride, j, width), sum);
    to[n] = _mm512_reduce_add_ps(sum);
  }
}

template <class T>
AVX512 void write_rows(const float* from, int64_t columns, int64_t count, int64_t width,
                       typename T::Element* to, int64_t stride) {
  for (int64_t i = 0; i < count; i++)
    for (int64_t j = 0; j < width; j += LANES)
      T::store(to + i * stride + j, std::min<int64_t>(LANES, width - j),
               _mm512_load_ps(from + i * columns + j));
}

// Queries `first`… of a head whose keys and values are packed.
template <class T>
AVX512 void tile(const Gradient& g, int64_t batch, int64_t head, int64_t first,
                 const Scratch<T>& s) {
  const Problem& p = g.of;
  const int64_t count = std::min(WIDE, p.queries - first);
  auto at = [&](const Rows& rows) {
    return head_of<T>(rows, batch, head, p.width) + first * rows.row_stride;
  };
  const auto* q = at(p.q);
  const auto* arriving = at(g.out);
  pack_across<T, COLUMNS>(q, p.q.row_stride, count, p.width, s.queries);
  pack_across<T, COLUMNS>(arriving, g.out.row_stride, count, p.width, s.arriving);
  pack_summed<T>(q, p.q.row_stride, count, p.width, s.query_rows, s.columns);
  pack_summed<T>(arriving, g.out.row_stride, count, p.width, s.arriving_rows, s.columns);
  alignas(64) float shifts[WIDE], sums[WIDE];
  levels<T>(arriving, g.out.row_stride, at(p.out), p.out.row_stride, count, p.width, sums);
  const float* log_sum = p.log_sum + (batch * p.heads + head) * p.queries + first;
  // Beyond the last query all weights are 0.
  for (int64_t n = 0; n < WIDE; n++) shifts[n] = n < count ? log_sum[n] * LOG2_E : 1e30f;
  __m512 shift[COLUMNS], level[COLUMNS], one[COLUMNS];
  for (int c = 0; c < COLUMNS; c++) {
    shift[c] = _mm512_load_ps(shifts + c * LANES);
    level[c] = _mm512_load_ps(sums + c * LANES);
    one[c] = _mm512_set1_ps(1.0f);
  }
  memset(s.to_queries, 0, s.columns * WIDE * sizeof(float));
  for (int64_t m = 0; m < p.keys; m += BLOCK) {
    const int64_t keys = std::min(BLOCK, p.keys - m);
    product<T, COLUMNS>(keys, s.keys + m * s.words, s.words, s.queries, WIDE, s.words, s.scores,
                        WIDE, false);
    product<T, COLUMNS>(keys, s.values + m * s.words, s.words, s.arriving, WIDE, s.words, s.pull,
                        WIDE, false);
    differentiate<T>(keys, p.scale, s, shift, level);
    add_product<T>(keys, s.weights, s.arriving_rows, s.TILE_WORDS, s.to_values + m * s.columns,
                   s.columns);
    add_product<T>(keys, s.slopes, s.query_rows, s.TILE_WORDS, s.to_keys + m * s.columns,
                   s.columns);
    product<T, COLUMNS>(p.width, s.key_channels + m / T::PER_WORD, s.key_words, s.slopes_across,
                        WIDE, (keys + T::PER_WORD - 1) / T::PER_WORD, s.to_queries, WIDE, true);
  }
  write_across<T, COLUMNS>(s.to_queries, one, count, p.width, at(g.q), g.q.row_stride);
}

template <class T>
void run_part(const Gradient& g, int64_t index, void* memory) {
  const Problem& p = g.of;
  const Scratch<T> s(g, memory);
  const int64_t batch = index / p.heads, head = index % p.heads;
  auto at = [&](const Rows& rows) { return head_of<T>(rows, batch, head, p.width); };
  pack_rows<T>(at(p.k), p.k.row_stride, p.keys, p.width, s.keys);
  pack_rows<T>(at(p.v), p.v.row_stride, p.keys, p.width, s.values);
  pack_channels<T>(at(p.k), p.k.row_stride, p.keys, p.width, s.key_channels, s.key_words);
  memset(s.to_keys, 0, p.keys * s.columns * sizeof(float));
  memset(s.to_values, 0, p.keys * s.columns * sizeof(float));
  for (int64_t first = 0; first < p.queries; first += WIDE) tile<T>(g, batch, head, first, s);
  write_rows<T>(s.to_keys, s.columns, p.keys, p.width, at(g.k), g.k.row_stride);
  write_rows<T>(s.to_values, s.columns, p.keys, p.width, at(g.v), g.v.row_stride);
}

}  // namespace

int64_t parts(const Gradient& g) { return g.of.batch * g.of.heads; }

size_t scratch_bytes(const Gradient& g) {
  return g.of.is_bf16 ? Scratch<BF16>(g, nullptr).bytes : Scratch<F32>(g, nullptr).bytes;
}

void run(const Gradient& g, int64_t index, void* scratch) {
  g.of.is_bf16 ? run_part<BF16>(g, index, scratch) : run_part<F32>(g, index, scratch);
}

}  // namespace attention
