// Mean and deviation of the channels of a norm, from what the kernel channel_sums has found.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace gsd {

// Of one image: for each run of its tokens the sums by channel of x - near, then of its square,
// then the values near.
struct ChannelSums {
    const float* sums;
    int64_t channels, tokens, run_tokens;  // the last run may be shorter
};

struct Moments {
    double mean, rstd;
};

// Of the channels from `first` to `last`, and of all tokens.
inline Moments moments(const ChannelSums& from, int64_t first, int64_t last, double eps) {
    const double tokens = static_cast<double>(from.tokens);
    std::vector<double> means, squares;
    double total = 0.0;
    for (int64_t c = first; c < last; ++c) {
        // All runs about the first one's value: in double precision the difference costs nothing.
        const double about = from.sums[2 * from.channels + c];
        double sum = 0.0, square = 0.0;
        const float* part = from.sums;
        for (int64_t done = 0; done < from.tokens; done += from.run_tokens) {
            const double apart = part[2 * from.channels + c] - about;
            const double part_sum = part[c];
            const double count = static_cast<double>(std::min(from.run_tokens, from.tokens - done));
            sum += part_sum + count * apart;
            square += part[from.channels + c] + apart * (2.0 * part_sum + count * apart);
            part += 3 * from.channels;
        }
        means.push_back(about + sum / tokens);
        squares.push_back(square - sum * sum / tokens);
        total += means.back();
    }
    const double mean = total / static_cast<double>(last - first);
    double deviations = 0.0;
    for (size_t c = 0; c < means.size(); ++c) {
        deviations += squares[c] + tokens * (means[c] - mean) * (means[c] - mean);
    }
    const double elements = tokens * static_cast<double>(last - first);
    return {mean, 1.0 / std::sqrt(std::max(deviations, 0.0) / elements + eps)};
}

}  // namespace gsd
