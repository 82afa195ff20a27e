// Telling clusters that are not worth a try from others.
#pragma once

#include <cstddef>
#include <span>

namespace coimg::qcow2 {

/// Whether deflate would hardly shrink the cluster: what is encrypted or compressed already. Takes a fraction of the
/// time that compressing such a cluster does, and next to none where something else is in it. The answer depends on
/// nothing but the content. Clusters that deflate would shrink by about a sixtieth may be among them.
bool is_incompressible(std::span<const std::byte> cluster);

}  // namespace coimg::qcow2
