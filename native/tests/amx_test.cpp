// The micro-kernel of AMX on tile registers in plain C++, for the machines that have none: which rows, groups and
// segments it multiplies, and that it touches no others. A processor that has AMX is held to the kernels' tests
// besides.
#define STAPES_ISA amx_test
#include "../kernels/amx.h"

#include <bit>

#include "../kernels/floats.h"
#include "../network/memory.h"
#include "check.h"

namespace stapes::tests {
namespace {

using amx_test::Byte, amx_test::AmxTiles, amx_test::Tile, amx_test::AMX_ROWS;

// As amx_instructions.h. What a register holds behind its rows is never right.
class PlainAmx {
  public:
    static void shape(int n_rows) {
        CHECK(1 <= n_rows && n_rows <= 32);
        const int above = n_rows < 16 ? n_rows : 16, below = n_rows - above;
        rows_ = {above, above, below, below, above, below, 16, 16};
        for (auto& one : registers_) one.assign(1024, 0xff);
        held = true;
    }
    static void release() { held = false; }
    template <int REGISTER>
    static void zero() {
        each_row(REGISTER, [](int, Byte* row) { std::memset(row, 0, 64); });
    }
    template <int REGISTER>
    static void load(const void* p, std::size_t stride) {
        each_row(REGISTER,
                 [&](int i, Byte* row) { std::memcpy(row, static_cast<const Byte*>(p) + size(i) * stride, 64); });
    }
    template <int REGISTER>
    static void store(void* p, std::size_t stride) {
        each_row(REGISTER,
                 [&](int i, const Byte* row) { std::memcpy(static_cast<Byte*>(p) + size(i) * stride, row, 64); });
    }
    template <int SUMS, int A, int B>
    static void dot_i8() {
        dot<std::int32_t>(SUMS, A, B, [](const Byte* a, const Byte* b) {
            std::int32_t sum = 0;
            for (std::size_t i = 0; i < 4; ++i) sum += a[i] * std::bit_cast<std::int8_t>(b[i]);
            return sum;
        });
    }
    template <int SUMS, int A, int B>
    static void dot_bf16() {
        dot<float>(SUMS, A, B, [](const Byte* a, const Byte* b) {
            bf16 x[2], y[2];
            std::memcpy(x, a, 4);
            std::memcpy(y, b, 4);
            return to_float(x[0]) * to_float(y[0]) + to_float(x[1]) * to_float(y[1]);
        });
    }
    static bool held;

  private:
    template <class F>
    static void each_row(int which, F&& f) {
        CHECK(held && rows_[size(which)] > 0);
        for (int i = 0; i < rows_[size(which)]; ++i) f(i, registers_[size(which)].data() + i * 64);
    }
    template <class Sum, class F>
    static void dot(int sums, int a, int b, F&& product) {
        CHECK(rows_[size(sums)] == rows_[size(a)] && rows_[size(b)] == 16);
        each_row(sums, [&](int i, Byte* row) {
            for (std::size_t column = 0; column < 16; ++column) {
                Sum sum;
                std::memcpy(&sum, row + column * 4, 4);
                for (std::size_t group = 0; group < 16; ++group)
                    sum += product(registers_[size(a)].data() + size(i) * 64 + group * 4,
                                   registers_[size(b)].data() + group * 64 + column * 4);
                std::memcpy(row + column * 4, &sum, 4);
            }
        });
    }
    static std::array<int, 8> rows_;
    static std::array<std::vector<Byte>, 8> registers_;
};
bool PlainAmx::held = false;
std::array<int, 8> PlainAmx::rows_{};
std::array<std::vector<Byte>, 8> PlainAmx::registers_{};

struct Case {
    int n_rows, n_segments, groups_per_segment, n_groups;
    bool add;
};

// Operands of the very size that the tile names, and what lies between A's rows is no number.
template <bool INTEGERS>
void check_amx(const Case& c) {
    using Sum = std::conditional_t<INTEGERS, std::int32_t, float>;
    const std::size_t n = size(c.n_groups) * 4, stride = n + 4, groups = size(c.groups_per_segment) * PANEL * 4;
    std::vector<Byte> a(size(c.n_rows - 1) * stride + n, 0xff);
    std::vector<std::vector<Byte>> b(size(c.n_segments), std::vector<Byte>(groups));
    std::mt19937 engine(7);
    const auto fill = [&](Byte* to, std::size_t n_bytes) {
        for (std::size_t i = 0; i < n_bytes; i += 2) {
            const auto bits = INTEGERS ? static_cast<std::uint16_t>(engine())
                                       : to_bf16(static_cast<float>(engine() % 17) - 8.0f).bits;
            std::memcpy(to + i, &bits, 2);
        }
    };
    for (int row = 0; row < c.n_rows; ++row) fill(a.data() + size(row) * stride, n);
    std::vector<const void*> segments;
    for (auto& one : b) {
        fill(one.data(), groups);
        segments.push_back(one.data());
    }
    const std::size_t out_stride = PANEL + 3;
    std::vector<Sum> out(size(c.n_rows - 1) * out_stride + PANEL, Sum{5});
    Tile t{};
    t.a = a.data();
    t.a_stride = stride;
    t.b = segments.data();
    t.n_segments = c.n_segments;
    t.groups_per_segment = c.groups_per_segment;
    t.n_groups = c.n_groups;
    t.out = out.data();
    t.out_stride = out_stride;
    t.add = c.add;
    {
        AmxTiles<PlainAmx> tiles;
        amx_test::run_on_amx<PlainAmx, INTEGERS>(tiles, c.n_rows, t);
        CHECK(PlainAmx::held);
    }
    CHECK(!PlainAmx::held);
    for (std::size_t row = 0; row < size(c.n_rows); ++row) {
        for (std::size_t column = 0; column < PANEL; ++column) {
            Sum sum = c.add ? Sum{5} : Sum{0};
            for (std::size_t group = 0; group < size(c.n_groups); ++group) {
                const Byte* one = a.data() + row * stride + group * 4;
                const Byte* other = b[group / size(c.groups_per_segment)].data() +
                                    (group % size(c.groups_per_segment) * PANEL + column) * 4;
                for (std::size_t i = 0; i < (INTEGERS ? 4 : 2); ++i) {
                    if constexpr (INTEGERS) {
                        sum += one[i] * std::bit_cast<std::int8_t>(other[i]);
                    } else {
                        bf16 x, y;
                        std::memcpy(&x, one + 2 * i, 2);
                        std::memcpy(&y, other + 2 * i, 2);
                        sum += to_float(x) * to_float(y);  // whole numbers: exact in any order
                    }
                }
            }
            CHECK(out[row * out_stride + column] == sum);
        }
        for (std::size_t column = PANEL; column < out_stride && row + 1 < size(c.n_rows); ++column)
            CHECK(out[row * out_stride + column] == Sum{5});
    }
}

// Rows dealt out to tiles: all of them, once, in tiles that fill registers where they can.
void check_dealing() {
    for (const int halves : {1, 2}) {
        for (int n_rows = 1; n_rows < 200; ++n_rows) {
            int next = 0;
            amx_test::for_tiles(n_rows, 2 * AMX_ROWS / halves, AMX_ROWS / halves, [&](int first, int n) {
                CHECK(first == next && 0 < n && n <= 2 * AMX_ROWS / halves);
                next = first + n;
                CHECK(next == n_rows || next % (AMX_ROWS / halves) == 0);
            });
            CHECK(next == n_rows);
        }
    }
}

}  // namespace

void test_amx() {
    for (const int n_rows : {1, 2, 15, 16, 17, 31, 32})
        for (const bool add : {false, true})
            for (const Case& one : {Case{0, 1, 1, 1, false},
                                    {0, 1, 16, 16, false},
                                    {0, 1, 37, 37, false},
                                    {0, 3, 16, 48, false},
                                    {0, 3, 20, 47, false}}) {
                Case each = one;
                each.n_rows = n_rows;
                each.add = add;
                check_amx<true>(each);
                check_amx<false>(each);
            }
    check_dealing();
}

}  // namespace stapes::tests
