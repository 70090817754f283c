#include "key_values.h"

namespace stapes {

KeyValues::KeyValues(BlockShape block_shape, int n_layers, int heads, int blocks)
    : shape(block_shape), n_heads(heads), n_blocks(blocks), memory(n_bytes(block_shape, n_layers, heads, blocks)) {}

std::size_t KeyValues::n_bytes(BlockShape shape, int n_layers, int n_heads, int n_blocks) {
    return static_cast<std::size_t>(n_layers) * static_cast<std::size_t>(n_heads) * static_cast<std::size_t>(n_blocks) *
           (shape.key_bytes() + shape.value_bytes());
}

// A head's keys lie together, and so do its values: a step of one query reads them from end to end, and processors read
// ahead of what runs on, not of what leaves every other block out.
std::byte* KeyValues::keys(int layer, int head, int block) {
    const std::size_t index =
        static_cast<std::size_t>(layer) * static_cast<std::size_t>(n_heads) + static_cast<std::size_t>(head);
    return memory.bytes() + index * n_bytes(shape, 1, 1, n_blocks) +
           static_cast<std::size_t>(block) * shape.key_bytes();
}

std::byte* KeyValues::values(int layer, int head, int block) {
    return keys(layer, head, n_blocks) + static_cast<std::size_t>(block) * shape.value_bytes();
}

}  // namespace stapes
