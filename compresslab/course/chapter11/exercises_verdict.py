"""Exercise 11.9: why it did not get faster."""

from __future__ import annotations

from compresslab.course.chapter11 import alternatives_verdict as right
from compresslab.course.chapter11 import checks_verdict as checks
from compresslab.course.chapter11 import mistakes_verdict as wrong
from compresslab.course.chapter11 import references_verdict as references
from compresslab.course.exercise import Exercise, Mistake

EXERCISES = (
    Exercise(
        id="11.9", name="diagnose", title="Why did it not get faster?", dots=3, minutes=20, points=3, track="core",
        misconception="fewer operations, fewer bits, so it must be faster",
        reference=references.diagnose, verify=checks.verify_diagnose,
        alternatives=(right.first_that_fits, right.nested),
        mistakes=(
            Mistake("any gain", wrong.any_gain, "you are content when it is faster at all; compare with what was hoped for"),
            Mistake("believes the ratio", wrong.believes_the_ratio, "you compare the ratio itself with the hope; the interval may still reach it: ask the high end"),
            Mistake("asks the low end", wrong.asks_the_low_end, "you want the whole interval above the hope; a hope is refuted only when the whole interval lies below it"),
            Mistake("believes the operations", wrong.believes_the_operations, "you are content because it does few enough MACs; the clock decides"),
            Mistake("work upside down", wrong.work_upside_down, "your work is upside down: MACs before / MACs after, above 1 where there is less to do"),
            Mistake("rate multiplied", wrong.rate_multiplied, "speed-up = work * rate, so the rate is the speed-up divided by the work"),
            Mistake("rate is the speed-up", wrong.rate_is_speedup, "your rate is the speed-up; what fewer MACs have earned must be divided out"),
            Mistake("work from zeros", wrong.work_from_zeros, "you count the work that the zeros promise; `macs` says what the kernels did"),
            Mistake("work in bytes", wrong.work_in_bytes, "you compared bytes; work is counted in MACs"),
            Mistake("any zeros", wrong.any_zeros, "the zeros were there before: compare with the network before the change"),
            Mistake("one zero", wrong.one_zero, "a few more zeros come from rounding to a coarser format; blame them only if they are more by a tenth of the weights"),
            Mistake("zeros first", wrong.zeros_first, "you blame the zeros although the MACs changed; ask for the work first"),
            Mistake("zeros before operations", wrong.zeros_before_operations, "rounding makes some zeros, too: with as many MACs as before, ask for more operations before you blame zeros"),
            Mistake("zeros never", wrong.never_zeros, "you never look at the zeros: with as many MACs as before they were all multiplied"),
            Mistake("operations first", wrong.operations_first, "more operations alone are no simulation: chains of small layers have more, too; ask for the work first"),
            Mistake("simulation unseen", wrong.never_simulated, "the same MACs with more operations: something is simulated around float kernels"),
            Mistake("intensity before", wrong.intensity_before, "you put the network before the change on the roofline; what runs is the one after it"),
            Mistake("wrong side", wrong.wrong_side, "below the ridge a kernel waits for memory, above it for arithmetic; you have it the other way round"),
            Mistake("bytes per MAC", wrong.bytes_per_mac, "the arithmetic intensity is MACs per byte, not bytes per MAC"),
            Mistake("indices unseen", wrong.indices_are_memory, "a sparse product has its own trouble, the indices; ask for it before the roofline"),
            Mistake("more work unseen", wrong.more_work_forgotten, "it does more MACs than before; nothing else needs to be asked")),
        hints=("Ask the clock first, then the work: is there more, as much or less to multiply? Each answer leaves a few causes.",
               "high >= hoped: as hoped. work < 1: more work. work = 1: more operations, else more zeros. work > 1: sparse, else macs / bytes of the network after against the ridge.",
               "work = before[\"macs\"] / after[\"macs\"]\nrate = ... / work\nif high >= ...:\n    cause = \"as hoped\"\nelif work < 1:\n    ...\nelif work == 1 and ...:\n    ...\nreturn work, rate, cause")),
)  # fmt: skip
