"""Exercises 9.7 to 9.9: what writing costs, keys in few bits, a draft that is judged."""

from __future__ import annotations

from compresslab.course.chapter09 import alternatives_decoding as right
from compresslab.course.chapter09 import checks_decoding as checks
from compresslab.course.chapter09 import mistakes_decoding as wrong
from compresslab.course.chapter09 import references_decoding as references
from compresslab.course.exercise import Exercise, Mistake

EXERCISES = (
    Exercise(
        id="9.7", name="tokens_per_second", title="The speed that bytes allow", dots=2, minutes=12, points=2, track="core",
        misconception="4 bits are faster because arithmetic is cheaper",
        reference=references.tokens_per_second, verify=checks.verify_tokens_per_second,
        alternatives=(right.per_token, right.as_tensor),
        mistakes=(
            Mistake("cheaper arithmetic", wrong.cheap_arithmetic, "you let arithmetic get faster with fewer bits: weights are unpacked to 16 bits before they are multiplied"),
            Mistake("bits as bytes", wrong.bits_as_bytes, "you take bits for bytes: eight bits are one"),
            Mistake("weights for each text", wrong.weights_for_each, "you read the weights for every text: once per step serves the whole batch"),
            Mistake("cache once", wrong.cache_once, "you read one cache for all texts: every text has its own"),
            Mistake("no cache", wrong.cache_forgotten, "you forgot the caches: each is read as a whole for every token"),
            Mistake("cache rounded", wrong.cache_rounded, "you rounded the cache along with the weights; cache_bytes is what it takes as it is"),
            Mistake("added", wrong.added, "you add the two times: reading and computing go on at once, the slower one counts"),
            Mistake("the faster", wrong.the_faster, "you let the faster of the two decide: a step is over when both are done"),
            Mistake("reading only", wrong.reading_only, "you forgot the arithmetic: with many texts it becomes the limit"),
            Mistake("computing only", wrong.computing_only, "you forgot the reading: it is the limit for one text"),
            Mistake("computed once", wrong.computed_once, "you multiply once for the whole batch: every text needs its own multiplications"),
            Mistake("steps per second", wrong.steps_per_second, "you count steps: a step writes one token for every text"),
            Mistake("seconds", wrong.seconds, "you return seconds per token; asked for is their inverse")),
        hints=("Two clocks run during a step: one for the bytes, one for the multiplications. What is needed once per step, and what once per text?",
               "reading = (weights * bits / 8 + batch * cache_bytes) / bandwidth; computing = batch * weights / macs_per_second; batch tokens per max of the two.",
               "bytes_read = ...\nreading = bytes_read / bandwidth\ncomputing = ...\nreturn batch / max(reading, computing)")),
    Exercise(
        id="9.8", name="quantize_keys", title="Keys in two bits", dots=3, minutes=15, points=3, track="stretch",
        misconception="all numbers of a tensor may share a grid",
        reference=references.quantize_keys, verify=checks.verify_quantize_keys,
        alternatives=(right.by_slices, right.channels_first),
        mistakes=(
            Mistake("by token", wrong.by_token, "the channels of a token share a grid: here the tokens of a channel do"),
            Mistake("one grid per group", wrong.one_grid_per_group, "all channels of a group share a grid: each channel needs its own"),
            Mistake("all tokens", wrong.all_tokens, "one grid for all groups of a channel: when a group is rounded the next tokens are not there yet"),
            Mistake("one grid", wrong.one_grid, "one grid for everything: the loudest channel decides for all"),
            Mistake("over heads", wrong.over_heads, "the heads share a grid: each head has channels of its own"),
            Mistake("over texts", wrong.over_texts, "the texts of the batch share a grid: each has its own"),
            Mistake("interleaved", wrong.interleaved, "your groups are every n-th token; a group is `group` tokens in a row, as they come"),
            Mistake("rest rounded", wrong.rest_rounded, "you round the tokens left over as a group of their own: they wait until theirs is full"),
            Mistake("rest dropped", wrong.rest_dropped, "the tokens left over are missing: they are in the cache too"),
            Mistake("symmetric", wrong.symmetric, "your grid is symmetric about zero: it runs from the minimum to the maximum"),
            Mistake("from zero", wrong.from_zero, "your grid begins at zero: it begins at the minimum"),
            Mistake("a step too many", wrong.a_step_too_many, "2^bits levels have 2^bits - 1 steps between them"),
            Mistake("a step too few", wrong.a_step_too_few, "you use one level less than there are: the range is 2^bits - 1 steps"),
            Mistake("cut off", wrong.cut_off, "you cut off instead of rounding"),
            Mistake("not shifted back", wrong.not_shifted_back, "the minimum that you took off is not added again"),
            Mistake("integers", wrong.integers, "you return the integers; asked for are the numbers that they stand for"),
            Mistake("no guard", wrong.no_guard, "a channel that does not change has the scale 0, and 0 / 0 is nan: let such a scale be 1")),
        hints=("Cut the tokens into groups, as an axis of its own; then minimum and maximum over the tokens of a group, with keepdim=True.",
               "scale = (high - low) / (2^bits - 1), 1 where it is 0; round((x - low) / scale) * scale + low. The L % group last tokens stay.",
               "B, H, L, d = keys.shape\nwhole = L // group * group\nx = keys[:, :, :whole].reshape(B, H, L // group, group, d)\nlow, high = ...\nscale = ...\n"
               "rounded = ...\nreturn torch.cat([rounded.reshape(B, H, whole, d), keys[:, :, whole:]], dim=2)")),
    Exercise(
        id="9.9", name="accept_or_resample", title="A draft that is judged", dots=3, minutes=15, points=3, track="core",
        misconception="a small model that writes ahead makes the text a little worse",
        reference=references.accept_or_resample, verify=checks.verify_accept_or_resample,
        alternatives=(right.by_quotient, right.by_loop, right.as_tensors),
        mistakes=(
            Mistake("always accepts", wrong.always_accepts, "you accept everything: the text is the draft's"),
            Mistake("only if likelier", wrong.only_if_likelier, "you reject every token with p < q: it is accepted with probability p / q"),
            Mistake("with probability p", wrong.with_probability_p, "you accept with probability p; the draft has already done its share: p / q"),
            Mistake("inverted", wrong.inverted, "the quotient is upside down: p / q"),
            Mistake("wrong side of u", wrong.u_on_the_wrong_side, "you accept when u is large: u < p / q has the probability p / q"),
            Mistake("draws from p", wrong.draws_from_p, "after a rejection you draw from p: what the draft proposes often gets too much"),
            Mistake("draws from q", wrong.draws_from_q, "after a rejection you draw from the draft again"),
            Mistake("absolute difference", wrong.absolute_difference, "you draw from |p - q|: only where p is larger something is missing"),
            Mistake("other difference", wrong.other_difference, "you draw from (q - p)+: what the draft proposes too often gets more still"),
            Mistake("not normalised", wrong.not_normalised, "(p - q)+ does not add up to 1: divide by its sum before you compare with v"),
            Mistake("likeliest of the rest", wrong.likeliest_left, "after a rejection you take the token with the largest p - q; draw it"),
            Mistake("likeliest", wrong.likeliest, "after a rejection you take the likeliest token; draw one from (p - q)+"),
            Mistake("all but the token", wrong.all_but_the_token, "after a rejection you draw from p without the token: others that the draft proposes too often must stay out, too"),
            Mistake("the same number", wrong.same_number_twice, "you draw with u again; after a rejection u is known to be large: v is for that"),
            Mistake("flag inverted", wrong.flag_inverted, "True means accepted; yours is the other way round"),
            Mistake("flag always", wrong.flag_always, "you always say True: a token that was drawn again was not accepted")),
        hints=("Where q is larger than p the draft proposes too often: let some go. Where p is larger too little comes: there the rejected ones are needed.",
               "Accept if u < p[token] / q[token]. Else draw from (p - q)+ divided by its sum: the first token whose cumulative sum is above v.",
               "if u * q[token] < p[token]:\n    return token, True\nleft = ...\ncumulative = (left / left.sum()).cumsum(0)\nreturn int(...), False")),
)
